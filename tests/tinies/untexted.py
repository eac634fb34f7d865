"""Tiny pipelines that take no text: noise to pictures, of a class, or of a smaller picture."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.image import UNET_CHANNELS, image_autoencoder
from tests.tinies.table import STEPS, TWO_LAYERS, Tinies, of


def dit() -> diffusers.DiffusionPipeline:
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=4,
        in_channels=4,
        out_channels=8,  # the noise, and its variance
        **TWO_LAYERS,
        norm_num_groups=4,
    )
    names = {0: "tench", 1: "goldfish, Carassius auratus"}
    return diffusers.DiTPipeline(transformer, image_autoencoder(), diffusers.DDIMScheduler(), id2label=names)


def ldm_super_resolution() -> diffusers.DiffusionPipeline:
    """Latents beside the picture, both of its size; an autoencoder makes them twice as large."""
    autoencoder = diffusers.VQModel(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        norm_num_groups=2,
        num_vq_embeddings=12,
    )
    return diffusers.LDMSuperResolutionPipeline(
        autoencoder, pixel_unet(in_channels=6, out_channels=3), diffusers.DDIMScheduler()
    )


def pixel_parts(scheduler: Any, **settings: Any) -> dict[str, Any]:
    return {"unet": pixel_unet(**settings), "scheduler": scheduler}


def pixel_unet(**settings: Any) -> diffusers.UNet2DModel:
    return diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=UNET_CHANNELS,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
        **settings,
    )


TINIES: Tinies = {
    "ddpm": of("DDPMPipeline", lambda: pixel_parts(diffusers.DDPMScheduler()), STEPS),
    "ddim": of("DDIMPipeline", lambda: pixel_parts(diffusers.DDIMScheduler()), STEPS),
    "score_sde_ve": of("ScoreSdeVePipeline", lambda: pixel_parts(diffusers.ScoreSdeVeScheduler()), STEPS),
    "consistency": of(
        "ConsistencyModelPipeline",
        lambda: pixel_parts(diffusers.CMStochasticIterativeScheduler(), num_class_embeds=10),
        STEPS | {"class_labels": 3},
    ),
    "dit": (dit, STEPS | {"class_labels": [1]}, ()),
    "ldm_super_resolution": (ldm_super_resolution, STEPS, ("image",)),
}
