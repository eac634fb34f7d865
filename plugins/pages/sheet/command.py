"""`framefleet sheet` and `framefleet grid`: their options, and what they print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from framefleet.jobs.options import OutputToRead, StorageSets, Verbose, Where
from framefleet.jobs.show.console import reporting, stderr, stdout

if TYPE_CHECKING:
    from framefleet.plugins.pages.sheet.sheet import Drawn


def _column(option: str, text: str) -> Any:
    return Option(option, metavar="COLUMN", help=text)


_Rows = Annotated[str | None, _column("--rows", "Column whose values are on the left.")]
_Columns = Annotated[str | None, _column("--columns", "Column whose values are at the top.")]
_Captions = Annotated[list[str] | None, _column("--caption", "Column to show below each clip; repeatable.")]
_Limit = Annotated[int, Option("--limit", min=1, max=1000, metavar="N", help="Maximum number of clips.")]


def sheet_command(
    output: OutputToRead,
    to: Annotated[
        Path, Option("--to", "-o", metavar="FILE", help="Picture to write: .png, .jpg or .webp.")
    ] = Path("sheet.png"),
    rows: _Rows = None,
    columns: _Columns = None,
    pages: Annotated[
        str | None, _column("--pages", "Draw one grid for each value of this column, one below the other.")
    ] = None,
    where: Where = None,
    captions: _Captions = None,
    limit: _Limit = 60,
    tile: Annotated[
        int | None,
        Option(
            "--tile",
            min=16,
            max=2048,
            metavar="PIXELS",
            help="Width of a clip in pixels. Default: 480 for three frames, 192 for one.",
        ),
    ] = None,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Draw the clips of an output in one picture: three frames of each, in the order of the table.

    With --rows and --columns, draw a grid with one frame of each, e.g. --rows prompt --columns seed.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import storage_options_alone
        from framefleet.plugins.pages.sheet.sheet import sheet

        draw = partial(
            sheet,
            output,
            to,
            rows=rows,
            columns=columns,
            pages=pages,
            where=where,
            captions=captions or (),
            limit=limit,
            tile=tile,
            storage_options=storage_options_alone(sets),
        )
        _show(draw, (rows, columns, pages))


def grid_command(
    output: OutputToRead,
    to: Annotated[
        Path, Option("--to", "-o", metavar="FILE", help="File to write: .mp4, .mkv, .gif or .webp.")
    ] = Path("grid.mp4"),
    rows: _Rows = None,
    columns: _Columns = None,
    where: Where = None,
    captions: _Captions = None,
    limit: _Limit = 60,
    tile: Annotated[
        int, Option("--tile", min=16, max=2048, metavar="PIXELS", help="Width of a clip in pixels.")
    ] = 192,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Draw the clips of an output side by side in one video, e.g. --rows prompt --columns seed."""
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import storage_options_alone
        from framefleet.plugins.pages.sheet.sheet import grid

        draw = partial(
            grid,
            output,
            to,
            rows=rows,
            columns=columns,
            where=where,
            captions=captions or (),
            limit=limit,
            tile=tile,
            storage_options=storage_options_alone(sets),
        )
        _show(draw, (rows, columns))


def _show(draw: Callable[..., Drawn], axes: Sequence[str | None]) -> None:
    """Draw; print where the picture is, and how many clips are not in it."""
    from framefleet.jobs.show.progress import watch_on
    from framefleet.jobs.show.watch import wait_for

    with watch_on(stderr) as watch:
        wait_for(watch, "reading records")
        drawn = draw(on_progress=watch.show)
    if drawn.num_found > drawn.num_clips + drawn.num_more:
        stderr.say(f"{drawn.num_clips:,} of {drawn.num_found:,} clips are shown: --limit, --where")
    if drawn.num_more:
        same = " and ".join(filter(None, axes))
        stderr.say(
            f"{drawn.num_more:,} clips are not shown, because another clip has the same {same}; "
            "choose clips with --where, or use other columns"
        )
    stdout.say(str(drawn.path))
