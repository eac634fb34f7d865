"""Several devices for one model, with the bits of one: the types of `model.placement`."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    placements={
        "components": "framefleet.plugins.placement.weights:Components",
        "layers": "framefleet.plugins.placement.weights:Layers",
        "ulysses": "framefleet.plugins.placement.ulysses:Ulysses",
        "ulysses+components": "framefleet.plugins.placement.ulysses:UlyssesComponents",
    }
)
