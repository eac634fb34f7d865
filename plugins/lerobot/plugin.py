"""LeRobot: datasets of robots' episodes as tables."""

from framefleet.api import Plugin

PLUGIN = Plugin(tables={"lerobot": "framefleet.plugins.lerobot.episodes:Episodes"})
