"""What `framefleet sheet` and `framefleet grid` print."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from framefleet.jobs.look.sheet.choice import ClipChoice
from framefleet.jobs.look.sheet.sheet import (
    MOVING,
    STILLS,
    Drawn,
    OnClip,
    checked_path,
    draw_grid,
    draw_sheet,
)
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.progress import watch_on
from framefleet.jobs.show.standing import ClipsProgress
from framefleet.jobs.show.watch import wait_for
from framefleet.pipeline.outputs.output import Output


def show_sheet(
    output: str, storage_options: Mapping[str, Any], to: Path, choice: ClipChoice, *, tile: int | None
) -> None:
    """Draw a contact sheet; print where it is, and what did not fit."""
    path, store = checked_path(to, STILLS, tile), Output.open_rendered(output, storage_options).store
    _show(lambda told: draw_sheet(store, path, choice, tile=tile, told=told))


def show_grid(
    output: str, storage_options: Mapping[str, Any], to: Path, choice: ClipChoice, *, tile: int
) -> None:
    """Draw a grid that plays; print where it is, and what did not fit."""
    path, store = checked_path(to, MOVING, tile), Output.open_rendered(output, storage_options).store
    _show(lambda told: draw_grid(store, path, choice, tile=tile, told=told))


def _show(draw: Callable[[OnClip], Drawn]) -> None:
    with watch_on(stderr) as watch:
        wait_for(watch, "reading records")
        drawn = draw(lambda done, total: watch.show(ClipsProgress(doing="read", done=done, total=total)))
    hidden = drawn.num_found - drawn.num_clips - drawn.num_more
    if hidden > 0:
        stderr.say(f"{drawn.num_clips:,} of {drawn.num_found:,} clips are shown: --limit, --where")
    if drawn.num_more:
        stderr.say(
            f"{drawn.num_more:,} clips more are of a cell that another one has: --where, or other columns"
        )
    stdout.say(str(drawn.path))
