"""Tiny pipelines of HunyuanVideo and its kin: SkyReels V1 from a picture, FramePack, HunyuanVideo 1.5."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer, SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from tests.tinies import encoders
from tests.tinies.table import ONE_LAYER, ONE_OF_EACH
from tests.tinies.templates import CHAT

CHANNELS = 4  # of the latents


def hunyuan() -> diffusers.DiffusionPipeline:
    transformer = diffusers.HunyuanVideoTransformer3DModel(**sizes())
    return diffusers.HunyuanVideoPipeline(**parts(), transformer=transformer)


def hunyuan_skyreels_i2v() -> diffusers.DiffusionPipeline:
    """The picture's latents beside the noise."""
    transformer = diffusers.HunyuanVideoTransformer3DModel(**sizes(in_channels=2 * CHANNELS))
    return diffusers.HunyuanSkyreelsImageToVideoPipeline(**parts(), transformer=transformer)


def framepack() -> diffusers.DiffusionPipeline:
    """A clip grows window by window, from its end to its start."""
    transformer = diffusers.HunyuanVideoFramepackTransformer3DModel(
        **sizes(), has_image_proj=True, image_proj_dim=encoders.IMAGE_WIDTH, has_clean_x_embedder=True
    )
    return diffusers.HunyuanVideoFramepackPipeline(
        **parts(),
        transformer=transformer,
        image_encoder=siglip(),
        feature_extractor=SiglipImageProcessor(size={"height": 32, "width": 32}),
    )


def hunyuan_1_5() -> diffusers.DiffusionPipeline:
    return diffusers.HunyuanVideo15Pipeline(**_parts_of_1_5("t2v"))


def hunyuan_1_5_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.HunyuanVideo15ImageToVideoPipeline(
        **_parts_of_1_5("i2v"),
        image_encoder=siglip(),
        feature_extractor=SiglipImageProcessor(size={"height": 32, "width": 32}),
    )


def siglip() -> SiglipVisionModel:
    config = SiglipVisionConfig(
        hidden_size=encoders.IMAGE_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    return SiglipVisionModel(config)


def sizes(*, in_channels: int = CHANNELS) -> dict[str, Any]:
    return {
        "in_channels": in_channels,
        "out_channels": CHANNELS,
        **ONE_OF_EACH,
        "num_refiner_layers": 1,
        "text_embed_dim": encoders.TEXT_WIDTH,
        "pooled_projection_dim": encoders.TEXT_WIDTH,
        "rope_axes_dim": (4, 6, 6),
    }


def parts() -> dict[str, Any]:
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=CHANNELS, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    )
    return {
        "tokenizer": encoders.llama_tokenizer(),
        "text_encoder": encoders.llama(),
        "tokenizer_2": encoders.clip_tokenizer(),
        "text_encoder_2": encoders.clip(),
        "vae": vae,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def _parts_of_1_5(task: str) -> dict[str, Any]:
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=2 * CHANNELS + 1,  # the noise, a first frame, and where it is
        out_channels=CHANNELS,
        **ONE_LAYER,
        num_refiner_layers=1,
        text_embed_dim=encoders.TEXT_WIDTH,
        text_embed_2_dim=encoders.TEXT_WIDTH,
        image_embed_dim=encoders.IMAGE_WIDTH,
        rope_axes_dim=(4, 6, 6),
        target_size=16,
        task_type=task,
    )
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=CHANNELS,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = CHAT
    return {
        "tokenizer": tokenizer,
        "text_encoder": encoders.qwen().model.language_model,
        "tokenizer_2": ByT5Tokenizer(),
        "text_encoder_2": encoders.t5(),
        "vae": vae,
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        "guider": diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
    }
