"""Tiny pipelines of HunyuanVideo's kin: from a picture, SkyReels V1, FramePack, and HunyuanVideo 1.5."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanSkyreelsImageToVideoPipeline,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
    HunyuanVideoTransformer3DModel,
)
from transformers import ByT5Tokenizer, SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from tests.tinies.encoders import (
    IMAGE_WIDTH,
    TEXT_WIDTH,
    clip,
    clip_tokenizer,
    llama,
    llama_tokenizer,
    qwen,
    t5,
)
from tests.tinies.templates import CHAT

CHANNELS = 4  # of the latents


def hunyuan_skyreels_i2v() -> DiffusionPipeline:
    """The picture's latents beside the noise."""
    transformer = HunyuanVideoTransformer3DModel(**sizes(in_channels=2 * CHANNELS))
    return HunyuanSkyreelsImageToVideoPipeline(**parts(), transformer=transformer)


def framepack() -> DiffusionPipeline:
    """A clip grows window by window, from its end to its start."""
    transformer = HunyuanVideoFramepackTransformer3DModel(
        **sizes(), has_image_proj=True, image_proj_dim=IMAGE_WIDTH, has_clean_x_embedder=True
    )
    return HunyuanVideoFramepackPipeline(
        **parts(),
        transformer=transformer,
        image_encoder=siglip(),
        feature_extractor=SiglipImageProcessor(size={"height": 32, "width": 32}),
    )


def hunyuan_1_5() -> DiffusionPipeline:
    return HunyuanVideo15Pipeline(**_parts_of_1_5("t2v"))


def hunyuan_1_5_i2v() -> DiffusionPipeline:
    return HunyuanVideo15ImageToVideoPipeline(
        **_parts_of_1_5("i2v"),
        image_encoder=siglip(),
        feature_extractor=SiglipImageProcessor(size={"height": 32, "width": 32}),
    )


def siglip() -> SiglipVisionModel:
    config = SiglipVisionConfig(
        hidden_size=IMAGE_WIDTH,
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
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "text_embed_dim": TEXT_WIDTH,
        "pooled_projection_dim": TEXT_WIDTH,
        "rope_axes_dim": (4, 6, 6),
    }


def parts() -> dict[str, Any]:
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=CHANNELS, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    )
    return {
        "tokenizer": llama_tokenizer(),
        "text_encoder": llama(),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_2": clip(),
        "vae": vae,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def _parts_of_1_5(task: str) -> dict[str, Any]:
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=2 * CHANNELS + 1,  # the noise, a first frame, and where it is
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_refiner_layers=1,
        text_embed_dim=TEXT_WIDTH,
        text_embed_2_dim=TEXT_WIDTH,
        image_embed_dim=IMAGE_WIDTH,
        rope_axes_dim=(4, 6, 6),
        target_size=16,
        task_type=task,
    )
    vae = AutoencoderKLHunyuanVideo15(
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
        "text_encoder": qwen().model.language_model,
        "tokenizer_2": ByT5Tokenizer(),
        "text_encoder_2": t5(),
        "vae": vae,
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        "guider": ClassifierFreeGuidance(guidance_scale=6.0),
    }
