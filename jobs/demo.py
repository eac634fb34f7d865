"""A small table, the shipped model and a job for them, in one folder; and pictures of what came out."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.replay.recorded import recorded_frames
from framefleet.jobs.shapes.captions import MAX_TOKENS
from framefleet.jobs.shapes.size import SIZE, Size
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.specs.check import Refused, check_argument, check_fps
from framefleet.pipeline.model.specs.signature import ScalarKind
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.contact_sheet import contact_sheet, moving_sheet
from framefleet.pipeline.outputs.fonts import warn_of_missing_fonts
from framefleet.pipeline.outputs.frames import Frames
from framefleet.pipeline.outputs.json_file import read_as
from framefleet.pipeline.outputs.parts import read_records, rows_of
from framefleet.pipeline.outputs.records import RECORDS
from framefleet.pipeline.outputs.store import Store
from framefleet.pipeline.request import FALLBACK_FPS

PROMPTS = Path(__file__).with_name("demo_prompts.csv")
MODEL = Path(__file__).parent / "shapes" / "model"
DEFAULTS = {
    **SIZE._asdict(),
    "num_inference_steps": 16,
    "guidance_scale": 4.0,
    "max_sequence_length": MAX_TOKENS,  # what the model was trained with
}
SMALLEST, LARGEST = Size(9, 64, 64), Size(33, 128, 128)  # what the model was trained for
SEEDS = range(4)  # of each prompt of one's own
MAX_MOVING = 18  # clips in the animation: three rows


def prepare_demo(folder: Path, words: Sequence[str] = (), size: Size | None = None) -> Job:
    """Put the table and job.yaml into `folder`; return the job.

    words: prompts of one's own, added to the table that is there; without any it is the shipped one. size: of
    their clips. Raises JobError when the model does not render these, or when the table that is there has no
    column for them, or the folder cannot be written.
    """
    if size and not words:
        raise JobError(f"size {size} is for words of your own", "give a prompt beside it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{folder} cannot be a folder: {error.strerror}", "choose another --output") from error
    table = folder / "prompts.csv"
    if words:
        _add(table, words, size._asdict() if size else {})
    elif not table.exists():
        shutil.copyfile(PROMPTS, table)
    job = {
        "table": str(table),
        "output": str(folder),
        "model": {"path": str(MODEL), "device": "cpu"},
        "defaults": DEFAULTS,
        "fleet": {"workers": 2, "gpus_per_worker": 0},
    }
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
    return load_job(file)


def _add(table: Path, words: Sequence[str], size: Mapping[str, int]) -> None:
    """Add a row for each prompt and seed; rows that are there already render once anyway."""
    _check(words, size)
    try:
        text = table.read_text(encoding="utf-8-sig") if table.exists() else ""
    except UnicodeDecodeError:
        raise JobError(f"{table} is not UTF-8", "save it as CSV UTF-8") from None
    text = text or PROMPTS.read_text(encoding="utf-8").splitlines()[0]
    columns = next(csv.reader(io.StringIO(text)))
    rows = [{"prompt": prompt, "seed": seed, **size} for prompt in words for seed in SEEDS]
    for name in rows[0]:
        if name not in columns:
            raise JobError(f"{table} has no column {name!r}", "choose another --output")
    longer = io.StringIO(newline="")
    longer.write(text if text.endswith("\n") else f"{text}\n")
    csv.DictWriter(longer, columns, lineterminator="\n").writerows(rows)
    new = table.with_suffix(".new")
    new.write_text(longer.getvalue(), encoding="utf-8")
    new.replace(table)


def _check(words: Sequence[str], size: Mapping[str, int]) -> None:
    """Raise JobError for what the model does not render: in the table it would stop every row."""
    for prompt in words:
        if (length := len(prompt.encode())) >= MAX_TOKENS:
            raise JobError(
                f"{prompt!r} has {length} bytes, and the model reads {MAX_TOKENS - 1}",
                "say it in fewer words",
            )
    for name, value in size.items():
        least, most = getattr(SMALLEST, name), getattr(LARGEST, name)
        if not least <= value <= most:
            raise JobError(f"{name} is {value}", f"use {least} to {most}, as the model was trained for")
    spec = inspect_model(MODEL)
    texts: list[tuple[str, Any, ScalarKind]] = [("prompt", prompt, "str") for prompt in words]
    numbers: list[tuple[str, Any, ScalarKind]] = [(name, value, "int") for name, value in size.items()]
    for name, value, kind in texts + numbers:
        found = check_argument(name, value, kind, spec)
        if isinstance(found, Refused):
            raise JobError(f"{name} is {value!r}, but {found.reason}", found.fix)


def draw_pictures(folder: Path) -> dict[str, Path]:
    """Draw the clips of a local output, in table order; return what is where, nothing without clips."""
    store = Store(str(folder))
    records = [_Drawn.of(record, store) for record in rows_of(read_records(store), store.url_of(RECORDS))]
    records.sort(key=lambda drawn: drawn.record["row_indices"])
    if not records:
        return {}
    warn_of_missing_fonts(map(_prompt, records))
    sheet, animation = folder / "contact-sheet.png", folder / "demo.gif"
    contact_sheet(_tiles(store, records, _caption)).save(sheet)
    moving = moving_sheet(_tiles(store, records[-MAX_MOVING:], _prompt))
    fps = check_fps(records[-1].record["fps"])  # images have none
    duration_ms = round(1000 / (FALLBACK_FPS if isinstance(fps, Refused) else fps))
    moving[0].save(animation, save_all=True, append_images=moving[1:], duration=duration_ms, loop=0)
    return {"contact sheet": sheet, "animation": animation}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arguments:
    """Those of a row that its caption tells."""

    prompt: str
    num_inference_steps: int
    guidance_scale: float


_ARGUMENTS = TypeAdapter(_Arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    record: Mapping[str, Any]
    arguments: _Arguments

    @classmethod
    def of(cls, record: Mapping[str, Any], store: Store) -> _Drawn:
        where = f"{store.url_of(RECORDS)}: arguments of {record['row_id']}"
        return cls(record=record, arguments=read_as(_ARGUMENTS, record["arguments"], where))


def _tiles(
    store: Store, records: Sequence[_Drawn], caption: Callable[[_Drawn], str]
) -> Iterator[tuple[Frames, str]]:
    for drawn in records:
        yield recorded_frames(store, drawn.record), caption(drawn)


def _prompt(drawn: _Drawn) -> str:
    return drawn.arguments.prompt


def _caption(drawn: _Drawn) -> str:
    record, asked = drawn.record, drawn.arguments
    return "\n".join(
        [
            asked.prompt,
            f"seed {record['seed']}, {asked.num_inference_steps} steps, guidance {asked.guidance_scale:g}",
            f"{record['width']}x{record['height']}x{record['num_frames']}, {record['scheduler']}",
        ]
    )
