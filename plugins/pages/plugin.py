"""Register `framefleet gallery`, `sheet`, `grid` and `report`, and the gallery that `render` writes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from framefleet.api import Listener, Plugin

if TYPE_CHECKING:
    from framefleet.api.outputs import Store  # imports fsspec


class GalleryListener(Listener):
    def rendering(self, store: Store) -> AbstractContextManager[None]:
        from framefleet.plugins.pages.gallery.gallery import refreshed_gallery

        return refreshed_gallery(store)

    def ending_lines(self, store: Store) -> Sequence[str]:
        from framefleet.plugins.pages.gallery.gallery import INDEX

        return [f"gallery: {store.url_of(INDEX)}"] if store.exists(INDEX) else []


PLUGIN = Plugin(
    commands={
        "Watch and control": ["framefleet.plugins.pages.command:report_command"],
        "Look at clips": [
            "framefleet.plugins.pages.command:gallery_command",
            "framefleet.plugins.pages.command:sheet_command",
            "framefleet.plugins.pages.command:grid_command",
        ],
    },
    files={
        "gallery": "derived",
        "report.html": "derived",
        "report.json": "derived",
        "stars": "kept",
        "stars.jsonl": "kept",
    },
    listeners=["framefleet.plugins.pages.plugin:GalleryListener"],
)
