"""`framefleet gallery`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_Output = Annotated[str, typer.Argument(help="The output to look at: a folder or a URL.")]
_X = Annotated[str | None, typer.Option("--x", metavar="COLUMN", help="What the grid has across, as seed.")]
_Y = Annotated[str | None, typer.Option("--y", metavar="COLUMN", help="What it has down, as guidance_scale.")]
_Previews = Annotated[bool, typer.Option("--previews", help="Also make the stills of clips that have none.")]


def gallery_command(
    output: _Output,
    x: _X = None,
    y: _Y = None,
    previews: _Previews = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Write a page into the output to look at its clips, filter, compare and choose them; print where it is.

    A file for the browser, from a folder, a bucket or any web server. `render` writes it for local outputs.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.gallery.shown import show_gallery
        from framefleet.jobs.job.file import storage_options

        show_gallery(output, x=x, y=y, previews=previews, storage_options=storage_options(sets or []))
