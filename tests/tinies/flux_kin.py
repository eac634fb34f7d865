"""Tiny pipelines around Flux's transformer and those that came of it: edits, Chroma, Bria, Ovis-Image."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, chat_tokenizer, clip, clip_tokenizer, qwen3, t5
from tests.tinies.image import image_autoencoder

PACKED = 16  # four latent channels in 2 x 2 patches
BLOCKS: dict[str, Any] = {
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT_WIDTH,
}


def flux_schnell() -> diffusers.DiffusionPipeline:
    """Distilled: guidance is no input of its network."""
    from diffusers import FluxPipeline

    return FluxPipeline(**_flux_parts(guidance_embeds=False))


def flux_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.FluxImg2ImgPipeline(**_flux_parts())


def flux_inpaint() -> diffusers.DiffusionPipeline:
    return diffusers.FluxInpaintPipeline(**_flux_parts())


def flux_kontext() -> diffusers.DiffusionPipeline:
    return diffusers.FluxKontextPipeline(**_flux_parts())


def flux_fill() -> diffusers.DiffusionPipeline:
    """Beside the noise the masked picture's latents, and the mask of every pixel: 8 x 8 for each latent."""
    return diffusers.FluxFillPipeline(**_flux_parts(in_channels=2 * PACKED + 2 * 2 * 64, out_channels=PACKED))


def flux_control() -> diffusers.DiffusionPipeline:
    return diffusers.FluxControlPipeline(**_flux_parts(in_channels=2 * PACKED, out_channels=PACKED))


def flux_control_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.FluxControlImg2ImgPipeline(**_flux_parts(in_channels=2 * PACKED, out_channels=PACKED))


def flux_control_inpaint() -> diffusers.DiffusionPipeline:
    return diffusers.FluxControlInpaintPipeline(**_flux_parts(in_channels=2 * PACKED, out_channels=PACKED))


def flux_controlnet() -> diffusers.DiffusionPipeline:
    return diffusers.FluxControlNetPipeline(**_flux_controlled())


def flux_controlnet_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.FluxControlNetImg2ImgPipeline(**_flux_controlled())


def flux_controlnet_inpaint() -> diffusers.DiffusionPipeline:
    return diffusers.FluxControlNetInpaintPipeline(**_flux_controlled())


def _flux_controlled() -> dict[str, Any]:
    controlnet = diffusers.FluxControlNetModel(
        **BLOCKS, in_channels=PACKED, pooled_projection_dim=TEXT_WIDTH, axes_dims_rope=[4, 6, 6]
    )
    return _flux_parts() | {"controlnet": controlnet}


def flux_kontext_inpaint() -> diffusers.DiffusionPipeline:
    return diffusers.FluxKontextInpaintPipeline(**_flux_parts())


def _flux_parts(**settings: Any) -> dict[str, Any]:
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


def chroma() -> diffusers.DiffusionPipeline:
    return diffusers.ChromaPipeline(**_chroma_parts())


def chroma_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.ChromaImg2ImgPipeline(**_chroma_parts())


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


def bria() -> diffusers.DiffusionPipeline:
    transformer = diffusers.BriaTransformer2DModel(**BLOCKS, in_channels=PACKED, axes_dims_rope=[0, 8, 8])
    return diffusers.BriaPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=t5(),
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


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
