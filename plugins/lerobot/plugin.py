"""LeRobot: datasets of robots' episodes as tables, and as exports."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    tables={"lerobot": "framefleet.plugins.lerobot.episodes:Episodes"},
    export_formats={"lerobot": "framefleet.plugins.lerobot.episode_shard:EpisodeShard"},
)
