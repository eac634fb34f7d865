"""Tiny video pipelines over Stable Diffusion's parts: AnimateDiff's kin, PIA, ModelScope."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies import encoders
from tests.tinies.image import NOISE, UNET_CHANNELS, image_autoencoder, unet, unet_xl
from tests.tinies.table import IMAGE, STEPS, Tinies


def animatediff_xl() -> diffusers.DiffusionPipeline:
    return diffusers.AnimateDiffSDXLPipeline(
        **_parts(),
        tokenizer_2=encoders.clip_tokenizer(),
        text_encoder_2=encoders.projected_clip(encoders.TEXT_WIDTH),
        unet=unet_xl(),
        motion_adapter=adapter(),
    )


def pia() -> diffusers.DiffusionPipeline:
    """The picture's latents and a mask beside the noise, where the motion adapter has a layer for them."""
    motion = adapter(use_motion_mid_block=False, conv_in_channels=9)
    return diffusers.PIAPipeline(**_parts(), unet=unet(), motion_adapter=motion)


def adapter(**settings: Any) -> diffusers.MotionAdapter:
    return diffusers.MotionAdapter(
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


def _unet_3d() -> diffusers.UNet3DConditionModel:
    return diffusers.UNet3DConditionModel(
        **_LEVELS, cross_attention_dim=encoders.TEXT_WIDTH, attention_head_dim=8
    )


def _parts() -> dict[str, Any]:
    return {
        "tokenizer": encoders.clip_tokenizer(),
        "text_encoder": encoders.clip(),
        "vae": image_autoencoder(),
        "scheduler": diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
    }


_FRAMES_4 = IMAGE | {"num_frames": 4}
TINIES: Tinies = {
    "animatediff_v2v": (
        lambda: diffusers.AnimateDiffVideoToVideoPipeline(**_parts(), unet=unet(), motion_adapter=adapter()),
        IMAGE | {"strength": 0.8},
        {"video": 4},
    ),
    "animatediff_xl": (animatediff_xl, _FRAMES_4, ()),
    "pia": (pia, _FRAMES_4, ("image",)),
    "modelscope": (lambda: diffusers.TextToVideoSDPipeline(**_parts(), unet=_unet_3d()), _FRAMES_4, ()),
    "modelscope_v2v": (
        lambda: diffusers.VideoToVideoSDPipeline(**_parts(), unet=_unet_3d()),
        STEPS | {"strength": 0.8},
        {"video": 4},
    ),
}
