"""Tiny image pipelines: Stable Diffusion 1.5, XL and 3, and HunyuanImage."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, byte_parts, clip, clip_tokenizer, projected_clip, qwen, t5
from tests.tinies.table import ONE_OF_EACH, TWO_LAYERS

UNET_CHANNELS = (16, 32)
# The noise schedule that Stable Diffusion 1.5 and XL ship.
NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def sd() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        vae=image_autoencoder(),
        unet=unet(),
        scheduler=diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionXLPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        tokenizer_2=clip_tokenizer(),
        text_encoder_2=projected_clip(TEXT_WIDTH),
        vae=image_autoencoder(),
        unet=unet_xl(),
        scheduler=diffusers.EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
    )


def sd3(channels: int = 4) -> diffusers.DiffusionPipeline:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        **TWO_LAYERS,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=TEXT_WIDTH,
        pos_embed_max_size=16,
    )
    half = TEXT_WIDTH // 2  # both CLIPs side by side are as wide as the T5
    return diffusers.StableDiffusion3Pipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=projected_clip(half),
        tokenizer_2=clip_tokenizer(),
        text_encoder_2=projected_clip(half),
        tokenizer_3=ByT5Tokenizer(),
        text_encoder_3=t5(),
        vae=image_autoencoder(channels),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def unet(**settings: Any) -> diffusers.UNet2DConditionModel:
    levels: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": UNET_CHANNELS,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": TEXT_WIDTH,
    }
    return diffusers.UNet2DConditionModel(**levels | settings)


def unet_xl(**settings: Any) -> diffusers.UNet2DConditionModel:
    both: dict[str, Any] = {
        "cross_attention_dim": 2 * TEXT_WIDTH,  # both encoders' hidden states side by side
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + TEXT_WIDTH,  # six numbers of sizes, pooled text
    }
    return unet(**both | settings)


def image_autoencoder(channels: int = 4, *, levels: int = 4) -> diffusers.AutoencoderKL:
    """levels: four make eight pixels to a latent, as in the real ones."""
    return diffusers.AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=64,
        scaling_factor=0.5,
        shift_factor=0.1,
    )


def hunyuan_image() -> diffusers.DiffusionPipeline:
    """HunyuanImage 2.1's kind: guidance by an object, which holds a momentum through the steps of a row."""
    transformer = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        **ONE_OF_EACH,
        num_refiner_layers=1,
        text_embed_dim=TEXT_WIDTH,
        text_embed_2_dim=TEXT_WIDTH,
        rope_axes_dim=(8, 8),
    )
    autoencoder = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32, 32),
        layers_per_block=1,
        spatial_compression_ratio=4,
        sample_size=32,
        scaling_factor=0.75,
    )
    return diffusers.HunyuanImagePipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=qwen(),
        tokenizer_2=ByT5Tokenizer(),
        text_encoder_2=t5(),
        vae=autoencoder,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=4.0),
        guider=diffusers.AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=0),
        ocr_guider=diffusers.AdaptiveProjectedMixGuidance(adaptive_projected_guidance_start_step=1),
    )


def hunyuan_image_refiner() -> diffusers.DiffusionPipeline:
    """The second stage: renders over a picture, its latents beside the noise."""
    transformer = diffusers.HunyuanImageTransformer2DModel(
        in_channels=16,  # two frames' latents, of the picture and of the noise
        out_channels=8,
        **ONE_OF_EACH,
        num_refiner_layers=1,
        patch_size=(1, 1, 1),
        guidance_embeds=True,
        text_embed_dim=TEXT_WIDTH,
        rope_axes_dim=(4, 6, 6),
    )
    autoencoder = diffusers.AutoencoderKLHunyuanImageRefiner(
        latent_channels=4,
        block_out_channels=(32, 32, 32),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=1,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=4.0)
    return diffusers.HunyuanImageRefinerPipeline(**byte_parts(qwen(), autoencoder, transformer, scheduler))
