"""Tiny video pipelines over Stable Diffusion's parts: AnimateDiff's kin, PIA, ModelScope."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AnimateDiffSDXLPipeline,
    AnimateDiffVideoToVideoPipeline,
    DDIMScheduler,
    DiffusionPipeline,
    MotionAdapter,
    PIAPipeline,
    TextToVideoSDPipeline,
    UNet3DConditionModel,
    VideoToVideoSDPipeline,
)

from tests.tinies.encoders import (
    TEXT_WIDTH,
    clip,
    clip_tokenizer,
    projected_clip,
)
from tests.tinies.image import NOISE, UNET_CHANNELS, image_autoencoder, unet, unet_xl


def animatediff_v2v() -> DiffusionPipeline:
    return AnimateDiffVideoToVideoPipeline(**_parts(), unet=unet(), motion_adapter=adapter())


def animatediff_xl() -> DiffusionPipeline:
    return AnimateDiffSDXLPipeline(
        **_parts(),
        tokenizer_2=clip_tokenizer(),
        text_encoder_2=projected_clip(TEXT_WIDTH),
        unet=unet_xl(),
        motion_adapter=adapter(),
    )


def pia() -> DiffusionPipeline:
    """The picture's latents and a mask beside the noise, where the motion adapter has a layer for them."""
    motion = adapter(use_motion_mid_block=False, conv_in_channels=9)
    return PIAPipeline(**_parts(), unet=unet(), motion_adapter=motion)


def modelscope() -> DiffusionPipeline:
    return TextToVideoSDPipeline(**_parts(), unet=_unet_3d())


def modelscope_v2v() -> DiffusionPipeline:
    return VideoToVideoSDPipeline(**_parts(), unet=_unet_3d())


def adapter(**settings: Any) -> MotionAdapter:
    return MotionAdapter(
        block_out_channels=UNET_CHANNELS,
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=32,
        **settings,
    )


_LEVELS: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def _unet_3d() -> UNet3DConditionModel:
    return UNet3DConditionModel(**_LEVELS, cross_attention_dim=TEXT_WIDTH, attention_head_dim=8)


def _parts() -> dict[str, Any]:
    return {
        "tokenizer": clip_tokenizer(),
        "text_encoder": clip(),
        "vae": image_autoencoder(),
        "scheduler": DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
    }
