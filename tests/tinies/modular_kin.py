"""Tiny modular pipelines over the networks of tiny pipelines that diffusers has whole too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from diffusers import (
    DiffusionPipeline,
    ErnieImageModularPipeline,
    Flux2KleinBaseModularPipeline,
    Flux2KleinModularPipeline,
    Flux2ModularPipeline,
    HeliosPyramidDistilledModularPipeline,
    HunyuanVideo15ModularPipeline,
    ModularPipeline,
    Wan22Image2VideoModularPipeline,
    Wan22VaceModularPipeline,
    WanAnimate2DistilledModularPipeline,
    WanImage2VideoModularPipeline,
)

from tests.tinies import flux2, helios, hunyuan, wan, wan_animate_2
from tests.tinies.modular import modular_of

_VIDEO = {"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": 2}
_IMAGE = {"height": 32, "width": 32, "num_inference_steps": 2}


def of(made: type[ModularPipeline], whole: Callable[[], DiffusionPipeline]) -> ModularPipeline:
    """Return a modular pipeline with the components of a whole one."""
    return modular_of(made, whole().components)


def wan_moe_vace() -> ModularPipeline:
    parts = wan.wan_vace().components
    return modular_of(Wan22VaceModularPipeline, {**parts, "transformer_2": wan.wan_vace().transformer})


TINIES: dict[str, tuple[Callable[[], ModularPipeline], dict[str, Any], tuple[str, ...]]] = {
    "hunyuan_1_5_modular": (partial(of, HunyuanVideo15ModularPipeline, hunyuan.hunyuan_1_5), _VIDEO, ()),
    "wan_i2v_modular": (
        partial(of, WanImage2VideoModularPipeline, wan.wan_i2v),
        _VIDEO | {"max_sequence_length": 512},  # with a picture, as of the whole one
        ("image",),
    ),
    "wan_moe_i2v_modular": (
        partial(of, Wan22Image2VideoModularPipeline, wan.wan_i2v_moe),
        _VIDEO,
        ("image",),
    ),
    "wan_moe_vace_modular": (wan_moe_vace, _VIDEO, ()),
    "helios_pyramid_distilled_modular": (
        partial(of, HeliosPyramidDistilledModularPipeline, helios.helios_pyramid),
        {"height": 64, "width": 64, "num_frames": 33},
        (),
    ),
    "wan_animate_2_distilled": (
        partial(of, WanAnimate2DistilledModularPipeline, wan_animate_2.wan_animate_2),
        {"height": 32, "width": 32, "segment_frame_length": 5, "num_inference_steps": 2},
        ("image", "driving_video"),
    ),
    "flux2_modular": (partial(of, Flux2ModularPipeline, flux2.flux2), _IMAGE, ()),
    "flux2_klein_modular": (partial(of, Flux2KleinModularPipeline, flux2.flux2_klein), _IMAGE, ()),
    "flux2_klein_base_modular": (
        partial(of, Flux2KleinBaseModularPipeline, flux2.flux2_klein_base),
        _IMAGE,
        (),
    ),
    "ernie_modular": (partial(of, ErnieImageModularPipeline, flux2.ernie), _IMAGE, ()),
}
