"""Tiny Z-Image pipelines that start from a picture."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImageTransformer2DModel,
)

from tests.tinies.encoders import TEXT_WIDTH, chat_tokenizer, qwen3
from tests.tinies.image import image_autoencoder


def z_image_img2img() -> DiffusionPipeline:
    return ZImageImg2ImgPipeline(**_parts())


def z_image_inpaint() -> DiffusionPipeline:
    return ZImageInpaintPipeline(**_parts())


def _parts() -> dict[str, Any]:
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    return {
        "vae": image_autoencoder(),
        "text_encoder": qwen3(num_layers=2).model,
        "tokenizer": chat_tokenizer(),
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }
