"""`framefleet plan --hollow` and `--probe`: what the pipeline says to rows, and what these take."""

from framefleet.doors import Plugin

PLUGIN = Plugin(planners=["framefleet.plugins.forecast.planner:Forecast"])
