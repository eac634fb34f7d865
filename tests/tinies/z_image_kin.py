"""Tiny Z-Image pipelines that start from a picture, over the parts of the first."""

from __future__ import annotations

from diffusers import DiffusionPipeline, ZImageImg2ImgPipeline, ZImageInpaintPipeline

from tests.tinies.z_image import z_image


def z_image_img2img() -> DiffusionPipeline:
    return ZImageImg2ImgPipeline(**z_image().components)


def z_image_inpaint() -> DiffusionPipeline:
    return ZImageInpaintPipeline(**z_image().components)
