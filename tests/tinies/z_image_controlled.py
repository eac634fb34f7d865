"""Tiny Z-Image pipelines that a ControlNet guides, which fills tables of the transformer."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.z_image import z_image


def z_image_controlnet() -> diffusers.DiffusionPipeline:
    return diffusers.ZImageControlNetPipeline(
        **z_image().components, controlnet=_controlnet(control_in_dim=4)
    )


def z_image_controlnet_inpaint() -> diffusers.DiffusionPipeline:
    """It is shown latents, mask and the masked picture's latents side by side."""
    return diffusers.ZImageControlNetInpaintPipeline(
        **z_image().components, controlnet=_controlnet(control_in_dim=9)
    )


def _controlnet(**settings: Any) -> diffusers.ZImageControlNetModel:
    return diffusers.ZImageControlNetModel(
        control_layers_places=[0, 1], dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2, **settings
    )
