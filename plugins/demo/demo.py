"""Render prompts with the shipped model, and draw two pictures of the clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import framefleet
from framefleet.api.outputs import Output, Store
from framefleet.api.sections import AtLeastOne

if TYPE_CHECKING:
    from framefleet.api.jobs import Progress, Summary

MAX_MOVING, _TILE = 18, 224  # number of clips in the animation, and their width in pixels
_MAX_DRAWN = 200  # clips on the contact sheet


def demo(
    prompts: Sequence[str] = (),
    *,
    output: str | Path = "demo-output",
    size: str | None = None,
    seeds: AtLeastOne = 4,
    on_progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Render prompts on two CPU workers, with a small model that is included.

    It can only draw one ball, square, triangle, star or ring that moves on a plain background. prompts: added
    to the table in `output`; by default a table of 28 rows. size: frames, height and width of their clips,
    e.g. "33x64x64". seeds: number of clips per prompt. on_progress: as for `render`. Also writes
    contact-sheet.png and demo.gif into `output`. Raises JobError for sizes that the model was not trained
    for, prompts that are too long for it, and a folder of another job.
    """
    from framefleet.jobs.render.render import render
    from framefleet.plugins.demo.prepare import prepare_demo, read_size

    job = prepare_demo(Path(output), prompts, read_size(size) if size else None, num_seeds=seeds)
    summary = render(job, on_progress=on_progress)
    draw_pictures(Path(output))
    return summary


def draw_pictures(folder: Path) -> dict[str, Path]:
    """Draw the clips of a local output, in table order; return the pictures' paths, or {} without clips."""
    tables = Output(Store(str(folder))).records(["row_indices"])
    rows = sorted(places[0] for table in tables for places in table["row_indices"].to_pylist())
    if not rows:
        return {}
    sheet, animation = folder / "contact-sheet.png", folder / "demo.gif"
    framefleet.sheet(str(folder), sheet, limit=min(len(rows), _MAX_DRAWN))
    newest = f"row_indices[1] >= {rows[-MAX_MOVING]}" if len(rows) > MAX_MOVING else None
    framefleet.grid(str(folder), animation, limit=MAX_MOVING, where=newest, tile=_TILE)
    return {"contact sheet": sheet, "animation": animation}
