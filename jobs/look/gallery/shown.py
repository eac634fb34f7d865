"""What `framefleet gallery` does, and what it prints about it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from framefleet.jobs.look.gallery.gallery import output_to_show, write_gallery
from framefleet.jobs.look.gallery.serve import GalleryServer
from framefleet.jobs.look.gallery.stills import make_stills
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.progress import watch_on
from framefleet.jobs.show.watch import wait_for
from framefleet.pipeline.outputs.layout import PICKS


def show_gallery(
    output: str,
    *,
    x: str | None,
    y: str | None,
    previews: bool,
    port: int | None,
    storage_options: Mapping[str, Any],
) -> None:
    """Write the gallery of an output; print where it is. port: also serve it there, until Ctrl-C."""
    store = output_to_show(output, storage_options)
    with watch_on(stderr) as watch:
        if previews:
            wait_for(watch, "making previews")
            num_made = make_stills(store)
            watch.say(f"{num_made:,} previews made")
        wait_for(watch, "writing the gallery")
        place = write_gallery(store, x=x, y=y)
    if port is None:
        stdout.say(place)
        return
    with GalleryServer(store, port=port) as server:
        stdout.say(server.url)
        stderr.say(f"stars and notes are kept in {store.url_of(PICKS)}; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            server.wait()
