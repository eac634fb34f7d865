"""Register LeRobot datasets as tables and as an export format."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    tables={"lerobot": "framefleet.plugins.lerobot.episodes:Episodes"},
    export_formats={"lerobot": "framefleet.plugins.lerobot.episode_shard:EpisodeShard"},
)
