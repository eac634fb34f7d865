"""Engines: clips from servers that speak `/v1/videos` or `/v1/images`."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    engines={
        "videos_api": "framefleet.plugins.engines.settings:VideosApi",
        "images_api": "framefleet.plugins.engines.settings:ImagesApi",
    },
    files={"engine": "kept"},
)
