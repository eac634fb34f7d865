"""Pictures of the clips of a local output: a contact sheet, and an animation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from framefleet.pipeline.model.specs.check import check_fps
from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.outputs.clip_frames import recorded_frames
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.media.contact_sheet import contact_sheet, moving_sheet
from framefleet.pipeline.outputs.media.lettering import warn_of_missing_fonts
from framefleet.pipeline.outputs.parts.parts import read_folder, rows_of
from framefleet.pipeline.outputs.stores.json_file import read_as
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.request import clip_fps
from framefleet.pipeline.text import shape_text

MAX_MOVING = 18  # clips in the animation: three rows


def draw_pictures(folder: Path) -> dict[str, Path]:
    """Draw the clips of a local output, in table order; return what is where, nothing without clips."""
    store = Store(str(folder))
    records = [_Drawn.of(record, store) for record in rows_of(read_folder(store), store.url_of(RECORDS))]
    records.sort(key=lambda drawn: drawn.record["row_indices"])
    if not records:
        return {}
    warn_of_missing_fonts(map(_prompt, records))
    sheet, animation = folder / "contact-sheet.png", folder / "demo.gif"
    contact_sheet(_tiles(store, records, _caption)).save(sheet)
    moving = moving_sheet(_tiles(store, records[-MAX_MOVING:], _prompt))
    fps = check_fps(records[-1].record["fps"])  # images have none
    duration_ms = round(1000 / clip_fps(None if isinstance(fps, Refused) else fps))
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
            f"{shape_text(record['num_frames'], record['height'], record['width'])}, {record['scheduler']}",
        ]
    )
