"""Tiny Kandinsky pipelines: 5, from text and from a picture, and 6, with sound."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines.kandinsky6.pipeline_kandinsky6_ti2va import _PROMPT_TEMPLATE, _QWEN_CROP_START
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, clip, clip_tokenizer, qwen
from tests.tinies.templates import template_tokenizer

CHANNELS = 4  # of the latents


def kandinsky() -> diffusers.DiffusionPipeline:
    return diffusers.Kandinsky5T2VPipeline(**_parts(), transformer=_transformer(visual_cond=False))


def kandinsky_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.Kandinsky5I2VPipeline(**_parts(), transformer=_transformer(visual_cond=True))


def kandinsky_6() -> diffusers.DiffusionPipeline:
    transformer = diffusers.Kandinsky6Transformer3DModel(
        **_sizes(),
        visual_cond=True,
        in_audio_dim=CHANNELS,
        out_audio_dim=CHANNELS,
        visual_token_type_num_embeddings=2,
    )
    audio_vae = diffusers.MMAudioVAE(
        mel_bins=8,
        latent_channels=CHANNELS,
        hidden_channels=8,
        channel_multipliers=(1, 2),
        layers_per_block=1,
        sample_rate=640,  # so that a clip of 0.2 s has a few latents of sound
        n_fft=16,
        hop_length=4,
    )
    vocoder = diffusers.MMAudioVocoder(
        num_mels=8,
        upsample_initial_channel=8,
        upsample_rates=(2, 2),
        upsample_kernel_sizes=(4, 4),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
    )
    parts = _parts() | {"tokenizer": template_tokenizer(_PROMPT_TEMPLATE, _QWEN_CROP_START)}
    parts["text_encoder"].resize_token_embeddings(len(parts["tokenizer"]))
    return diffusers.Kandinsky6TI2VAPipeline(
        **parts, transformer=transformer, audio_vae=audio_vae, vocoder=vocoder
    )


def _parts() -> dict[str, Any]:
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=CHANNELS, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": qwen(),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_2": clip(),
        "vae": vae,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def _transformer(*, visual_cond: bool) -> diffusers.Kandinsky5Transformer3DModel:
    return diffusers.Kandinsky5Transformer3DModel(**_sizes(), visual_cond=visual_cond)


def _sizes() -> dict[str, Any]:
    return {
        "in_visual_dim": CHANNELS,
        "in_text_dim": TEXT_WIDTH,
        "in_text_dim2": TEXT_WIDTH,
        "time_dim": 32,
        "out_visual_dim": CHANNELS,
        "patch_size": (1, 2, 2),
        "model_dim": 48,
        "ff_dim": 64,
        "num_text_blocks": 1,
        "num_visual_blocks": 1,
        "axes_dims": (8, 8, 8),
    }
