"""Which offload fits which card: computed from what the presets say, and they say what the classes hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from torch import nn

from framefleet.pipeline.model.families.family import Preset
from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.model.options.footprint import (
    A_MEGAPIXEL,
    CARDS_GB,
    DECODERS,
    MEMORY_WAYS,
    OFFLOADS,
    Way,
    activations_gb,
    decoding_gb,
    peak_gb,
    ways_for,
)
from tests.decoders import COUNTED, decode_peak
from tests.each import check_each
from tools.memory_reports import page, reported_rows


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


def test_every_preset_can_be_computed() -> None:
    check_each(PRESETS, _can_be_computed)


def _can_be_computed(each: Preset) -> None:
    assert set(each.held) <= set(each.parameters)
    assert all(each.held[name] < each.parameters[name] for name in each.held)
    for size, pixels in zip(each.size or A_MEGAPIXEL, each.token[1:], strict=True):
        assert size % pixels == 0 or each.name == "cosmos3-nano"  # whose network pads to whole tokens
    assert 0 < activations_gb(each) < 20


def test_each_offload_takes_less_and_a_larger_card_never_fits_less() -> None:
    check_each(PRESETS, _offloads_take_less)


def _offloads_take_less(each: Preset) -> None:
    for tiling in (False, True):
        peaks = [peak_gb(each, Way(offload=offload, vae_tiling=tiling)) for offload in OFFLOADS]
        assert peaks == sorted(peaks, reverse=True)
    order = [*MEMORY_WAYS, None]
    found = [order.index(next(iter(ways_for(each, card)), None)) for card in CARDS_GB]
    assert found == sorted(found, reverse=True)


def test_the_sum_is_made_of_weights_what_computes_and_what_is_always_there() -> None:
    wan = preset("wan2.1-t2v-1.3b")
    activations = 21 * 30 * 52 * 1536 * 16 * 2 / 1e9  # tokens, channels, what a block holds, bytes
    assert activations_gb(wan) == pytest.approx(activations)
    decoding = decoding_gb(wan)
    assert peak_gb(wan, Way()) == pytest.approx(1 + sum(wan.weights_gb().values()) + decoding)
    assert peak_gb(wan, Way(offload="model")) == pytest.approx(1 + 5.681 * 2)  # the text encoder's moment
    assert peak_gb(wan, Way(offload="group")) == pytest.approx(1 + 0.127 * 4 + decoding)
    tiled = Way(offload="group", vae_tiling=True)
    assert peak_gb(wan, tiled) == pytest.approx(1 + 0.127 * 4 + decoding_gb(wan, tiling=True))


@pytest.mark.parametrize(
    ("name", "size", "gb"),  # counted on the meta device for these sizes, in the preset's dtype
    [
        ("wan2.1-t2v-1.3b", (81, 480, 832), 8.5),
        ("wan2.2-t2v-a14b", (81, 720, 1280), 19.6),
        ("hunyuanvideo", (129, 720, 1280), 37.1),
        ("cogvideox-5b", (49, 512, 768), 18.0),
        ("ltx-video", (161, 512, 768), 6.34),
        ("mochi-1-preview", (85, 512, 768), 62.8),
        ("hunyuanvideo-1.5-480p-t2v", (121, 512, 768), 85.5),
    ],
)
def test_decoders_take_what_was_counted(name: str, size: tuple[int, int, int], gb: float) -> None:
    row = dict(zip(("num_frames", "height", "width"), size, strict=True))
    assert decoding_gb(preset(name), row) == pytest.approx(gb, rel=0.02)


@pytest.mark.parametrize("name", ["wan", "cogvideox", "ltx", "kl"])
def test_a_decoder_is_counted_on_the_meta_device(name: str) -> None:
    height, width, frames = 128, 192, COUNTED[name].frames
    found = decode_peak(COUNTED[name], height, width, frames) / 2  # values, in bf16
    said = DECODERS[COUNTED[name].millions].gb(height, width, frames, value_bytes=1, tiling=False) * 1e9
    assert said == pytest.approx(found, rel=0.05)


def test_hunyuanvideo_fits_an_80_gb_card_only_just() -> None:
    assert peak_gb(preset("hunyuanvideo"), Way()) == pytest.approx(79.5, abs=0.2)
    assert ways_for(preset("hunyuanvideo"), 79)[0] == Way(vae_tiling=True)


@pytest.mark.parametrize(
    ("name", "_row", "_options", "computed", "reported", "_source"), list(reported_rows())
)
def test_what_is_computed_is_near_what_people_report(
    name: str, _row: str, _options: str, computed: str, reported: str, _source: str
) -> None:
    said = next(float(word) for word in reported.split() if word[0].isdigit())
    assert said * 0.85 < float(computed) < said * 1.0737 * 1.1, f"{name}: GB, or GiB"


def test_the_page_of_reports_is_as_the_command_prints_it() -> None:
    assert Path("docs/memory.md").read_text() == page()
