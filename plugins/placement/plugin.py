"""The types of `model.placement`, which run one model on several devices, with the same bits as on one."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    placements={
        "components": "framefleet.plugins.placement.weights:Components",
        "layers": "framefleet.plugins.placement.weights:Layers",
        "ulysses": "framefleet.plugins.placement.ulysses:Ulysses",
        "ulysses+components": "framefleet.plugins.placement.ulysses:UlyssesComponents",
    }
)
