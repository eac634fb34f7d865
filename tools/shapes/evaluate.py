"""In: the output of a render job of `prompts`. Out: how often its clips show what was asked, by settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from rich.progress import track

from framefleet import Output
from framefleet.jobs.show.console import stderr
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.parts import rows_of
from framefleet.pipeline.outputs.stores.store import read_as
from framefleet.plugins.demo.prepare import Size
from tools.shapes.measure import Measured, measure

ATTRIBUTES = ("color", "background", "shape", "motion")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lora:
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arguments:
    """Those of a row that clips are compared by; some models take no steps, or no guidance."""

    num_inference_steps: int = 1
    guidance_scale: float = 1.0
    lora: Mapping[str, _Lora] = field(default_factory=dict)


_ARGUMENTS = TypeAdapter(_Arguments)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Settings:
    """What clips are compared by. lora: as rows ask for it, "" for none."""

    lora: str
    language: str
    size: Size
    num_inference_steps: int
    guidance_scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The share of clips, 0 to 1, that show what was asked. all: in every respect."""

    settings: Settings
    num_clips: int
    color: float
    background: float
    shape: float
    motion: float
    all: float


def evaluate(output: str, storage_options: Mapping[str, Any] | None = None) -> list[Score]:
    """Return a score for each of the settings that the output's records have, sorted.

    output: of a render job, or its folder of records. Raises JobError when it has no records, or when their
    rows did not say what to show; StoreError when a clip is gone.
    """
    groups: dict[Settings, list[dict[str, bool]]] = defaultdict(list)
    for record, seen in measured_clips(output, storage_options):
        right = {name: record[name] == getattr(seen, name) for name in ATTRIBUTES}
        groups[_settings_of(record)].append(right)
    return [_score(settings, groups[settings]) for settings in sorted(groups)]


def measured_clips(
    output: str, storage_options: Mapping[str, Any] | None = None
) -> Iterator[tuple[dict[str, Any], Measured]]:
    """Yield each record, and what its clip shows."""
    rendered = Output.open_rendered(output.rstrip("/").removesuffix(f"/{RECORDS}"), storage_options)
    columns = rendered.schema().names
    if missing := [name for name in ATTRIBUTES if name not in columns]:
        raise JobError(
            f"the records of {rendered.url} do not say what was asked: no column {missing[0]!r}",
            "render the table that `python -m tools.shapes prompts` writes",
        )
    rows = [row for table in rendered.records() for row in rows_of(table, rendered.url)]
    for record in track(rows, "measuring clips", console=stderr):
        yield record, measure(rendered.frames(record))


def _settings_of(record: Mapping[str, Any]) -> Settings:
    asked = read_as(_ARGUMENTS, record["arguments"], f"arguments of {record['row_id']}")
    return Settings(
        lora="+".join(f"{name}:{lora.weight:g}" for name, lora in sorted(asked.lora.items())),
        language=record.get("language") or "",
        size=Size(*(record[name] for name in Size._fields)),
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
    )


def _score(settings: Settings, clips: list[dict[str, bool]]) -> Score:
    shares = {name: sum(clip[name] for clip in clips) / len(clips) for name in ATTRIBUTES}
    every = sum(all(clip.values()) for clip in clips) / len(clips)
    return Score(settings=settings, num_clips=len(clips), all=every, **shares)
