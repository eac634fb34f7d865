"""Tiny modular pipelines over the networks of tiny pipelines that diffusers has whole too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers

from tests.tinies import (
    autumn,
    flux2,
    flux_kin,
    helios,
    hunyuan,
    layered,
    qwen_2_1,
    qwen_kin,
    wan,
    wan_animate_2,
)
from tests.tinies.modular import modular_of

_VIDEO = {"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": 2}
_IMAGE = {"height": 32, "width": 32, "num_inference_steps": 2}
_EDIT = {"height": 128, "width": 128, "num_inference_steps": 2}


def of(
    made: type[diffusers.ModularPipeline], whole: Callable[[], diffusers.DiffusionPipeline]
) -> diffusers.ModularPipeline:
    """Return a modular pipeline with the components of a whole one."""
    return modular_of(made, whole().components)


def wan_moe_vace() -> diffusers.ModularPipeline:
    parts = wan.wan_vace().components
    return modular_of(
        diffusers.Wan22VaceModularPipeline, {**parts, "transformer_2": wan.wan_vace().transformer}
    )


def helios_pyramid() -> diffusers.ModularPipeline:
    """Not distilled: with Helios' own scheduler."""
    parts = helios.helios_pyramid().components
    return modular_of(
        diffusers.HeliosPyramidModularPipeline, {**parts, "scheduler": diffusers.HeliosScheduler(gamma=0.3)}
    )


def qwen_edit(made: type[diffusers.ModularPipeline]) -> diffusers.ModularPipeline:
    """Blocks round pictures to 32 pixels, which have to be two latents or more."""
    parts = qwen_kin.qwen_edit_plus().components
    return modular_of(made, {**parts, "vae": qwen_kin.autoencoder()})


TINIES: dict[str, tuple[Callable[[], diffusers.ModularPipeline], dict[str, Any], tuple[str, ...]]] = {
    "hunyuan_1_5_modular": (
        partial(of, diffusers.HunyuanVideo15ModularPipeline, hunyuan.hunyuan_1_5),
        _VIDEO,
        (),
    ),
    "wan_i2v_modular": (
        partial(of, diffusers.WanImage2VideoModularPipeline, wan.wan_i2v),
        _VIDEO | {"max_sequence_length": 512},  # with a picture, as of the whole one
        ("image",),
    ),
    "wan_moe_i2v_modular": (
        partial(of, diffusers.Wan22Image2VideoModularPipeline, wan.wan_i2v_moe),
        _VIDEO,
        ("image",),
    ),
    "wan_moe_vace_modular": (wan_moe_vace, _VIDEO, ()),
    "helios_pyramid_distilled_modular": (
        partial(of, diffusers.HeliosPyramidDistilledModularPipeline, helios.helios_pyramid),
        {"height": 64, "width": 64, "num_frames": 33},
        (),
    ),
    "helios_pyramid_modular": (helios_pyramid, {"height": 64, "width": 64, "num_frames": 33}, ()),
    "wan_animate_2_distilled": (
        partial(of, diffusers.WanAnimate2DistilledModularPipeline, wan_animate_2.wan_animate_2),
        {"height": 32, "width": 32, "segment_frame_length": 5, "num_inference_steps": 2},
        ("image", "driving_video"),
    ),
    "flux2_modular": (partial(of, diffusers.Flux2ModularPipeline, flux2.flux2), _IMAGE, ()),
    "flux2_klein_modular": (partial(of, diffusers.Flux2KleinModularPipeline, flux2.flux2_klein), _IMAGE, ()),
    "flux2_klein_base_modular": (
        partial(of, diffusers.Flux2KleinBaseModularPipeline, flux2.flux2_klein_base),
        _IMAGE,
        (),
    ),
    "ernie_modular": (partial(of, diffusers.ErnieImageModularPipeline, flux2.ernie), _IMAGE, ()),
    "krea2_modular": (partial(of, diffusers.Krea2ModularPipeline, qwen_kin.krea2_deep), _IMAGE, ()),
    "krea2_turbo_modular": (
        partial(of, diffusers.Krea2TurboModularPipeline, qwen_kin.krea2_deep),
        _IMAGE,
        (),
    ),
    "qwen_2_1_modular": (partial(of, diffusers.QwenImage21ModularPipeline, qwen_2_1.qwen_2_1), _IMAGE, ()),
    "qwen_2_1_turbo_modular": (
        partial(of, diffusers.QwenImage21TurboModularPipeline, qwen_2_1.qwen_2_1),
        _IMAGE,
        (),
    ),
    "qwen_edit_modular": (partial(qwen_edit, diffusers.QwenImageEditModularPipeline), _EDIT, ("image",)),
    "qwen_edit_plus_modular": (
        partial(qwen_edit, diffusers.QwenImageEditPlusModularPipeline),
        _EDIT,
        ("image",),
    ),
    "qwen_layered_modular": (
        partial(of, diffusers.QwenImageLayeredModularPipeline, layered.qwen_layered),
        {"num_inference_steps": 2, "layers": 2},
        ("image",),
    ),
    "flux_kontext_modular": (
        partial(of, diffusers.FluxKontextModularPipeline, flux_kin.flux_kontext),
        _IMAGE | {"max_area": 1024},
        ("image",),
    ),
    "ideogram4_modular": (
        partial(of, diffusers.Ideogram4ModularPipeline, autumn.ideogram4),
        _IMAGE | {"guidance_schedule": [7.0, 3.0], "max_sequence_length": 128},
        (),
    ),
}
