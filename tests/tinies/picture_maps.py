"""Tiny pipelines that return maps of a picture: LDM3D, and Marigold's depth, normals and albedo."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.image import sd, unet
from tests.tinies.table import IMAGE, STEPS, Tinies, parts

_DEFAULTS = {"default_denoising_steps": 2, "default_processing_resolution": 16}


def ldm3d() -> diffusers.DiffusionPipeline:
    """As Intel/ldm3d-4c: the autoencoder decodes to colours and one channel of depth."""
    return _ldm3d(channels=4)


def marigold_intrinsics() -> diffusers.DiffusionPipeline:
    names = {"target_names": ["albedo", "roughness"]}
    return diffusers.MarigoldIntrinsicsPipeline(
        **_estimating(num_maps=2), prediction_type="intrinsics", target_properties=names
    )


def _estimating(*, num_maps: int = 1) -> dict[str, Any]:
    latents = 4 * num_maps
    return parts(sd()) | _DEFAULTS | {"unet": unet(in_channels=4 + latents, out_channels=latents)}


def _ldm3d(*, channels: int) -> diffusers.DiffusionPipeline:
    autoencoder = diffusers.AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        sample_size=64,
    )
    given = parts(sd()) | {"vae": autoencoder}
    return diffusers.StableDiffusionLDM3DPipeline(
        **given,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )


_MAPS = STEPS | {"processing_resolution": 16}
TINIES: Tinies = {
    "ldm3d": (ldm3d, IMAGE, ()),
    # As Intel/ldm3d: the depth is 16 bits in two channels of a second picture.
    "ldm3d_rgb": (lambda: _ldm3d(channels=6), IMAGE, ()),
    "marigold_depth": (
        lambda: diffusers.MarigoldDepthPipeline(**_estimating(), prediction_type="depth"),
        _MAPS,
        ("image",),
    ),
    "marigold_normals": (
        lambda: diffusers.MarigoldNormalsPipeline(**_estimating(), prediction_type="normals"),
        _MAPS,
        ("image",),
    ),
    "marigold_intrinsics": (marigold_intrinsics, _MAPS, ("image",)),
}
