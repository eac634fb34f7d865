"""`framefleet sheet` and `framefleet grid`, as they are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framefleet.jobs.options import OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_Still = Annotated[Path, typer.Option("--to", "-o", help="Picture to write: .png, .jpg or .webp.")]
_Moving = Annotated[Path, typer.Option("--to", "-o", help="File to write: .mp4, .mkv, .gif or .webp.")]
_Rows = Annotated[
    str | None, typer.Option("--rows", metavar="COLUMN", help="Column whose values are on the left.")
]
_Columns = Annotated[
    str | None, typer.Option("--columns", metavar="COLUMN", help="Column whose values are at the top.")
]
_Pages = Annotated[
    str | None,
    typer.Option("--pages", metavar="COLUMN", help="Column whose values each get a page, below each other."),
]
_Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="SQL",
        help='Include only records for which this is true, e.g. "guidance_scale < 5".',
    ),
]
_Captions = Annotated[
    list[str] | None,
    typer.Option("--caption", metavar="COLUMN", help="Column to show below each clip; repeatable."),
]
_Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Maximum number of clips.")]
_GridTile = Annotated[int, typer.Option("--tile", min=16, max=2048, help="Width of a clip in pixels.")]
_SheetTile = Annotated[
    int | None,
    typer.Option(
        "--tile",
        min=16,
        max=2048,
        help="Width of a clip in pixels. Default: 480 for three frames, 192 for one.",
    ),
]


def sheet_command(
    output: OutputToRead,
    to: _Still = Path("sheet.png"),
    rows: _Rows = None,
    columns: _Columns = None,
    pages: _Pages = None,
    where: _Where = None,
    captions: _Captions = None,
    limit: _Limit = 60,
    tile: _SheetTile = None,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Draw the clips of an output in one picture: three frames of each, in the order of the table.

    With --rows and --columns, draw a grid with one frame of each, e.g. --rows prompt --columns seed.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import set_values
        from framefleet.jobs.look.sheet.choice import ClipChoice
        from framefleet.jobs.look.sheet.shown import show_sheet

        options = set_values(sets or []).get("storage_options", {})
        choice = ClipChoice(
            rows=rows,
            columns=columns,
            where=where,
            limit=limit,
            captions=tuple(captions or []),
            pages=pages,
        )
        show_sheet(output, options, to, choice, tile=tile)


def grid_command(
    output: OutputToRead,
    to: _Moving = Path("grid.mp4"),
    rows: _Rows = None,
    columns: _Columns = None,
    where: _Where = None,
    captions: _Captions = None,
    limit: _Limit = 60,
    tile: _GridTile = 192,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Draw the clips of an output side by side in one video, e.g. --rows prompt --columns seed."""
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import set_values
        from framefleet.jobs.look.sheet.choice import ClipChoice
        from framefleet.jobs.look.sheet.shown import show_grid

        options = set_values(sets or []).get("storage_options", {})
        choice = ClipChoice(
            rows=rows, columns=columns, where=where, limit=limit, captions=tuple(captions or [])
        )
        show_grid(output, options, to, choice, tile=tile)
