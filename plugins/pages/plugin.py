"""The commands `framefleet gallery`, `sheet`, `grid` and `report`, and the gallery that `render` writes."""

from framefleet.doors import Plugin

PLUGIN = Plugin(
    commands={
        "Watch and control": ["framefleet.plugins.pages.report.command:report_command"],
        "Look at clips": [
            "framefleet.plugins.pages.gallery.command:gallery_command",
            "framefleet.plugins.pages.sheet.command:sheet_command",
            "framefleet.plugins.pages.sheet.command:grid_command",
        ],
    },
    listeners=["framefleet.plugins.pages.gallery.listener:GalleryListener"],
)
