"""Tiny Kandinsky 5 pipelines: from text, and from a picture."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLHunyuanVideo,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5I2VPipeline,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
)
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, clip, clip_tokenizer, qwen

CHANNELS = 4  # of the latents


def kandinsky() -> DiffusionPipeline:
    return Kandinsky5T2VPipeline(**_parts(), transformer=_transformer(visual_cond=False))


def kandinsky_i2v() -> DiffusionPipeline:
    return Kandinsky5I2VPipeline(**_parts(), transformer=_transformer(visual_cond=True))


def _parts() -> dict[str, Any]:
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=CHANNELS, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": qwen(),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_2": clip(),
        "vae": vae,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def _transformer(*, visual_cond: bool) -> Kandinsky5Transformer3DModel:
    return Kandinsky5Transformer3DModel(
        in_visual_dim=CHANNELS,
        in_text_dim=TEXT_WIDTH,
        in_text_dim2=TEXT_WIDTH,
        time_dim=32,
        out_visual_dim=CHANNELS,
        patch_size=(1, 2, 2),
        model_dim=48,
        ff_dim=64,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(8, 8, 8),
        visual_cond=visual_cond,
    )
