"""All recipes but `generate`."""

from framefleet.api import Plugin

PLUGIN = Plugin(recipes=["framefleet.plugins.recipes.recipes:RECIPES"])
