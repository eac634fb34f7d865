"""Tiny modular pipelines over the networks of tiny pipelines that diffusers has whole too."""

from __future__ import annotations

from functools import partial

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
from tests.tinies.table import FRAMES_5, LARGER, LARGEST, Tinies, modular_of, of


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
    parts = qwen_kin.edit_parts()
    return modular_of(made, {**parts, "vae": qwen_kin.autoencoder()})


TINIES: Tinies = {
    "hunyuan_1_5_modular": of("HunyuanVideo15ModularPipeline", hunyuan.hunyuan_1_5, FRAMES_5),
    # With a picture it reads as much of a prompt as the whole one.
    "wan_i2v_modular": of(
        "WanImage2VideoModularPipeline", wan.wan_i2v, FRAMES_5 | {"max_sequence_length": 512}, "image"
    ),
    "wan_moe_i2v_modular": of("Wan22Image2VideoModularPipeline", wan.wan_i2v_moe, FRAMES_5, "image"),
    "wan_moe_vace_modular": (wan_moe_vace, FRAMES_5, ()),
    "helios_pyramid_distilled_modular": of(
        "HeliosPyramidDistilledModularPipeline",
        helios.helios_pyramid,
        {"height": 64, "width": 64, "num_frames": 33},
    ),
    "helios_pyramid_modular": (helios_pyramid, {"height": 64, "width": 64, "num_frames": 33}, ()),
    "wan_animate_2_distilled": of(
        "WanAnimate2DistilledModularPipeline",
        wan_animate_2.wan_animate_2,
        LARGER | {"segment_frame_length": 5},
        image=1,
        driving_video=9,
    ),
    "flux2_modular": of("Flux2ModularPipeline", flux2.flux2, LARGER),
    "flux2_klein_modular": of("Flux2KleinModularPipeline", flux2.flux2_klein, LARGER),
    "flux2_klein_base_modular": of("Flux2KleinBaseModularPipeline", flux2.flux2_klein_base, LARGER),
    "ernie_modular": of("ErnieImageModularPipeline", flux2.ernie, LARGER),
    "krea2_modular": of("Krea2ModularPipeline", qwen_kin.krea2_deep, LARGER),
    "krea2_turbo_modular": of("Krea2TurboModularPipeline", qwen_kin.krea2_deep, LARGER),
    "qwen_2_1_modular": of("QwenImage21ModularPipeline", qwen_2_1.qwen_2_1, LARGER),
    "qwen_2_1_turbo_modular": of("QwenImage21TurboModularPipeline", qwen_2_1.qwen_2_1, LARGER),
    "qwen_edit_modular": (partial(qwen_edit, diffusers.QwenImageEditModularPipeline), LARGEST, ("image",)),
    "qwen_edit_plus_modular": (
        partial(qwen_edit, diffusers.QwenImageEditPlusModularPipeline),
        LARGEST,
        ("image",),
    ),
    "qwen_layered_modular": of(
        "QwenImageLayeredModularPipeline",
        layered.qwen_layered,
        {"num_inference_steps": 2, "layers": 2},
        "image",
    ),
    "flux_kontext_modular": of(
        "FluxKontextModularPipeline", flux_kin.flux_parts, LARGER | {"max_area": 1024}, "image"
    ),
    "ideogram4_modular": of(
        "Ideogram4ModularPipeline",
        autumn.ideogram4,
        LARGER | {"guidance_schedule": [7.0, 3.0], "max_sequence_length": 128},
    ),
}
