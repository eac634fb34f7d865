"""Which offload fits which card: computed from what the presets say, and they say what the classes hold."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from torch import nn

from framefleet.pipeline.model.families.known import PRESETS
from framefleet.pipeline.model.families.preset import Preset
from framefleet.pipeline.model.options.footprint import (
    A_MEGAPIXEL,
    CARDS_GB,
    OFFLOADS,
    activations_gb,
    offload_for,
    peak_gb,
)

EACH = [pytest.param(preset, id=preset.name) for preset in PRESETS]


def preset(name: str) -> Preset:
    return next(preset for preset in PRESETS if preset.name == name)


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_a_preset_holds_what_the_class_has_in_its_largest_block_and_in_none() -> None:
    with torch.device("meta"):
        known = {
            "wan2.1-t2v-1.3b": WanTransformer3DModel(num_attention_heads=12, ffn_dim=8960, num_layers=30),
            "cogvideox-2b": CogVideoXTransformer3DModel(),
        }
    for name, model in known.items():
        blocks = [*getattr(model, "blocks", ()), *getattr(model, "transformer_blocks", ())]
        outside = millions(model) - sum(map(millions, blocks))
        held = outside + max(map(millions, blocks))
        assert preset(name).parameters["transformer"] == round(millions(model))
        assert preset(name).held["transformer"] == round(held)


@pytest.mark.parametrize("each", EACH)
def test_every_preset_can_be_computed(each: Preset) -> None:
    assert set(each.held) <= set(each.parameters)
    assert all(each.held[name] < each.parameters[name] for name in each.held)
    for size, pixels in zip(each.size or A_MEGAPIXEL, each.token[1:], strict=True):
        assert size % pixels == 0 or each.name == "cosmos3-nano"  # whose network pads to whole tokens
    assert 0 < activations_gb(each) < 20


@pytest.mark.parametrize("each", EACH)
def test_each_offload_takes_less_and_a_larger_card_never_fits_less(each: Preset) -> None:
    peaks = [peak_gb(each, offload) for offload in OFFLOADS]
    assert peaks == sorted(peaks, reverse=True)
    found = [offload_for(each, card) for card in CARDS_GB]
    order = [None, *reversed(OFFLOADS)]
    assert [order.index(offload) for offload in found] == sorted(order.index(offload) for offload in found)


def test_the_sum_is_made_of_weights_activations_and_what_is_always_there() -> None:
    wan = preset("wan2.1-t2v-1.3b")
    activations = 21 * 30 * 52 * 1536 * 16 * 2 / 1e9  # tokens, channels, what a block holds, bytes
    assert activations_gb(wan) == pytest.approx(activations)
    assert peak_gb(wan, "none") == pytest.approx(2 + sum(wan.weights_gb().values()) + activations)
    assert peak_gb(wan, "model") == pytest.approx(2 + 5.681 * 2)  # the text encoder's moment
    assert peak_gb(wan, "group") == pytest.approx(2 + 1.05 * 2)  # its largest layer's
