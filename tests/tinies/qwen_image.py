"""A tiny Qwen-Image: prompts are not padded, so that forwards are as long as the prompt."""

from __future__ import annotations

import diffusers
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, qwen
from tests.tinies.table import TWO_LAYERS
from tests.tinies.templates import template_tokenizer

CHANNELS = 4  # of the latents


def qwen_image() -> diffusers.DiffusionPipeline:
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=4 * CHANNELS,  # in 2 x 2 patches
        out_channels=CHANNELS,
        **TWO_LAYERS,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
    )
    autoencoder = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * CHANNELS,
        latents_std=[0.7] * CHANNELS,
    )
    pipe = diffusers.QwenImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=1.0),
        vae=autoencoder,
        text_encoder=qwen(num_added=100),
        tokenizer=ByT5Tokenizer(),
        transformer=transformer,
    )
    # It cuts its own words off by their number, as many as Qwen's tokenizer makes of them.
    instruction, _, _ = pipe.prompt_template_encode.partition("{}")
    pipe.register_modules(tokenizer=template_tokenizer(instruction, pipe.prompt_template_encode_start_idx))
    return pipe
