"""Register the engines `videos_api` and `images_api`."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    engines={
        "videos_api": "framefleet.plugins.engines.settings:VideosApi",
        "images_api": "framefleet.plugins.engines.settings:ImagesApi",
    },
    files={"engine": "kept"},
)
