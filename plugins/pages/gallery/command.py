"""`framefleet gallery`: its options, and what it prints."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from typer import Option

from framefleet.jobs.options import OutputToRead, Port, StorageSets, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout
from framefleet.pipeline.outputs.layout import PICKS


def gallery_command(
    output: OutputToRead,
    x: Annotated[
        str | None, Option("--x", "--columns", metavar="COLUMN", help="Column across the grid, e.g. seed.")
    ] = None,
    y: Annotated[
        str | None,
        Option("--y", "--rows", metavar="COLUMN", help="Column down the grid, e.g. guidance_scale."),
    ] = None,
    previews: Annotated[
        bool, Option("--previews", help="Make a preview image for each clip that has none.")
    ] = False,
    serve: Annotated[
        bool,
        Option("--serve", help="Serve the page on this machine, and save stars and notes in the output."),
    ] = False,
    port: Port = 0,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Write a page into an output, to view, filter, compare and pick its clips. Prints its location.

    Open the page in a browser, from a folder, a bucket or any web server. `render` writes it for local
    outputs.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import storage_options_alone
        from framefleet.jobs.show.progress import watch_on
        from framefleet.jobs.show.watch import wait_for
        from framefleet.pipeline.outputs.output import Output
        from framefleet.plugins.pages.gallery.gallery import make_stills, write_gallery
        from framefleet.plugins.pages.gallery.serve import GalleryServer

        store = Output.open_rendered(output, storage_options_alone(sets)).store
        with watch_on(stderr) as watch:
            if previews:
                wait_for(watch, "making previews")
                watch.say(f"{make_stills(store):,} previews made")
            wait_for(watch, "writing the gallery")
            place = write_gallery(store, x=x, y=y)
        if not serve:
            stdout.say(place)
            return
        with GalleryServer(store, port=port) as server:
            stdout.say(server.url)
            stderr.say(f"stars and notes are saved in {store.url_of(PICKS)}; press Ctrl-C to stop")
            with suppress(KeyboardInterrupt):
                server.wait()
