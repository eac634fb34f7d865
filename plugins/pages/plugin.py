"""The commands `framefleet gallery`, `sheet`, `grid` and `report`, and the gallery that `render` writes."""

from framefleet.doors import Plugin
from framefleet.plugins.pages.gallery.command import gallery_command
from framefleet.plugins.pages.gallery.listener import GalleryListener
from framefleet.plugins.pages.report.command import report_command
from framefleet.plugins.pages.sheet.command import grid_command, sheet_command

PLUGIN = Plugin(
    commands={
        "Look at clips": [gallery_command, sheet_command, grid_command],
        "Watch and control": [report_command],
    },
    listeners=[GalleryListener()],
)
