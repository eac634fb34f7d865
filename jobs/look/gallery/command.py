"""`framefleet gallery`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_X = Annotated[str | None, typer.Option("--x", metavar="COLUMN", help="Column across the grid, e.g. seed.")]
_Y = Annotated[
    str | None, typer.Option("--y", metavar="COLUMN", help="Column down the grid, e.g. guidance_scale.")
]
_Previews = Annotated[
    bool, typer.Option("--previews", help="Make a preview image for each clip that has none.")
]

_Serve = Annotated[
    bool,
    typer.Option("--serve", help="Serve the page on this machine, and save stars and notes in the output."),
]
_Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of --serve. Default: a free one.")]


def gallery_command(
    output: OutputToRead,
    x: _X = None,
    y: _Y = None,
    previews: _Previews = False,
    serve: _Serve = False,
    port: _Port = 0,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Write a page into an output, to view, filter, compare and pick its clips. Prints its location.

    Open the page in a browser, from a folder, a bucket or any web server. `render` writes it for local
    outputs.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import storage_options
        from framefleet.jobs.look.gallery.shown import show_gallery

        options = storage_options(sets or [])
        asked = port if serve else None
        show_gallery(output, x=x, y=y, previews=previews, port=asked, storage_options=options)
