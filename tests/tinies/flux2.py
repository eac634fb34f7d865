"""Tiny pipelines around Flux.2's autoencoder: Flux.2, Klein, ERNIE-Image."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.encoders import TEXT_WIDTH, chat_tokenizer, mistral3, qwen3
from tests.tinies.table import CHAT, LARGER, ONE_OF_EACH, REDRAWN, Tinies

PACKED = 16  # four latent channels in 2 x 2 patches


def flux2() -> diffusers.DiffusionPipeline:
    return diffusers.Flux2Pipeline(
        **_parts(guidance_embeds=True), tokenizer=chat_tokenizer(), text_encoder=mistral3(num_layers=31)
    )


def flux2_klein() -> diffusers.DiffusionPipeline:
    return diffusers.Flux2KleinPipeline(**_klein_parts(), is_distilled=True)


def flux2_klein_base() -> diffusers.DiffusionPipeline:
    return diffusers.Flux2KleinPipeline(**_klein_parts(), is_distilled=False)


def _klein_parts() -> dict[str, Any]:
    text = {"tokenizer": chat_tokenizer(), "text_encoder": qwen3(num_layers=28)}
    return _parts(guidance_embeds=False) | text


def _parts(*, guidance_embeds: bool) -> dict[str, Any]:
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=PACKED,
        **ONE_OF_EACH,
        joint_attention_dim=3 * TEXT_WIDTH,  # three of the encoder's layers side by side
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    return {
        "vae": autoencoder(),
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    }


def ernie() -> diffusers.DiffusionPipeline:
    transformer = diffusers.ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=64,
        in_channels=PACKED,
        out_channels=PACKED,
        text_in_dim=TEXT_WIDTH,
        rope_axes_dim=(4, 6, 6),
    )
    return diffusers.ErnieImagePipeline(
        transformer=transformer,
        vae=autoencoder(),
        tokenizer=chat_tokenizer(),
        text_encoder=mistral3(num_layers=2).model,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def autoencoder() -> diffusers.AutoencoderKLFlux2:
    return diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=64,
    )


TINIES: Tinies = {
    "flux2": (flux2, CHAT, ()),
    "flux2_klein": (flux2_klein, CHAT, ()),
    "flux2_klein_base": (flux2_klein_base, CHAT, ()),
    "flux2_klein_inpaint": (
        lambda: diffusers.Flux2KleinInpaintPipeline(**_klein_parts(), is_distilled=False),
        REDRAWN | {"max_sequence_length": 256},
        ("image", "mask_image"),
    ),
    "ernie": (ernie, LARGER, ()),
    # Keys and values of the given picture are computed in the first step alone.
    "flux2_klein_kv": (lambda: diffusers.Flux2KleinKVPipeline(**_klein_parts(), is_distilled=True), CHAT, ()),
}
