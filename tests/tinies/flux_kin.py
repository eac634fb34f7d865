"""Tiny pipelines around Flux's transformer and those that came of it: edits, Chroma, Bria, Ovis-Image."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, chat_tokenizer, clip, clip_tokenizer, qwen3, t5
from tests.tinies.image import image_autoencoder
from tests.tinies.table import CHAT, LARGER, ONE_OF_EACH, REDRAWN, Tinies, of

PACKED = 16  # four latent channels in 2 x 2 patches
BLOCKS: dict[str, Any] = ONE_OF_EACH | {"joint_attention_dim": TEXT_WIDTH}
_BESIDE = {"in_channels": 2 * PACKED, "out_channels": PACKED}  # the picture's latents beside the noise
# The masked picture's latents, and the mask of every pixel: 8 x 8 for each latent.
_FILLED = _BESIDE | {"in_channels": 2 * PACKED + 2 * 2 * 64}
_KONTEXT = LARGER | {"max_area": 1024, "_auto_resize": False}


def flux() -> diffusers.DiffusionPipeline:
    return diffusers.FluxPipeline(**flux_parts())


def _flux_controlled() -> dict[str, Any]:
    controlnet = diffusers.FluxControlNetModel(
        **BLOCKS, in_channels=PACKED, pooled_projection_dim=TEXT_WIDTH, axes_dims_rope=[4, 6, 6]
    )
    return flux_parts() | {"controlnet": controlnet}


def flux_parts(**settings: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"in_channels": PACKED, "guidance_embeds": True}
    return {
        "tokenizer": clip_tokenizer(),
        "text_encoder": clip(),
        "tokenizer_2": ByT5Tokenizer(),
        "text_encoder_2": t5(),
        "vae": image_autoencoder(),
        "transformer": diffusers.FluxTransformer2DModel(
            **BLOCKS, **{**given, **settings}, pooled_projection_dim=TEXT_WIDTH, axes_dims_rope=(4, 6, 6)
        ),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    }


def _chroma_parts() -> dict[str, Any]:
    transformer = diffusers.ChromaTransformer2DModel(
        **BLOCKS,
        in_channels=PACKED,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=16,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": t5(),
        "vae": image_autoencoder(),
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(),
    }


def _bria_parts() -> dict[str, Any]:
    transformer = diffusers.BriaTransformer2DModel(**BLOCKS, in_channels=PACKED, axes_dims_rope=[0, 8, 8])
    return _chroma_parts() | {"transformer": transformer}


def ovis() -> diffusers.DiffusionPipeline:
    transformer = diffusers.OvisImageTransformer2DModel(
        **BLOCKS, in_channels=PACKED, out_channels=PACKED, axes_dims_rope=(4, 6, 6)
    )
    return diffusers.OvisImagePipeline(
        tokenizer=chat_tokenizer(),
        text_encoder=qwen3(num_layers=2).model,
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


TINIES: Tinies = {
    # Distilled: guidance is no input of its network.
    "flux_schnell": of("FluxPipeline", lambda: flux_parts(guidance_embeds=False), LARGER),
    "flux_img2img": of("FluxImg2ImgPipeline", flux_parts, LARGER | REDRAWN, "image"),
    "flux_inpaint": of("FluxInpaintPipeline", flux_parts, LARGER | REDRAWN, "image", "mask_image"),
    "flux_kontext": of("FluxKontextPipeline", flux_parts, _KONTEXT, "image"),
    "flux_fill": of("FluxFillPipeline", lambda: flux_parts(**_FILLED), LARGER, "image", "mask_image"),
    "flux_control": of("FluxControlPipeline", lambda: flux_parts(**_BESIDE), LARGER, "control_image"),
    "flux_control_img2img": of(
        "FluxControlImg2ImgPipeline",
        lambda: flux_parts(**_BESIDE),
        LARGER | REDRAWN,
        "image",
        "control_image",
    ),
    "chroma": of("ChromaPipeline", _chroma_parts, LARGER),
    "chroma_img2img": of("ChromaImg2ImgPipeline", _chroma_parts, LARGER | REDRAWN, "image"),
    "bria": of("BriaPipeline", _bria_parts, LARGER),
    "ovis": (ovis, CHAT, ()),
    "flux_control_inpaint": of(
        "FluxControlInpaintPipeline",
        lambda: flux_parts(**_BESIDE),
        LARGER | REDRAWN,
        "image",
        "control_image",
        "mask_image",
    ),
    "flux_controlnet": of("FluxControlNetPipeline", _flux_controlled, LARGER, "control_image"),
    "flux_controlnet_img2img": of(
        "FluxControlNetImg2ImgPipeline", _flux_controlled, LARGER | REDRAWN, "image", "control_image"
    ),
    "flux_controlnet_inpaint": of(
        "FluxControlNetInpaintPipeline",
        _flux_controlled,
        LARGER | REDRAWN,
        "image",
        "mask_image",
        "control_image",
    ),
    "flux_kontext_inpaint": of("FluxKontextInpaintPipeline", flux_parts, _KONTEXT, "image", "mask_image"),
}
