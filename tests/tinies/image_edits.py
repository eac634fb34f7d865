"""Tiny Stable Diffusion pipelines that start from a picture, and latent consistency models."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.image import NOISE, sd, sd3, sdxl, unet

_UNSAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def sd_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionImg2ImgPipeline(**_sd_parts())


def sd_inpaint() -> diffusers.DiffusionPipeline:
    """The kind with weights of its own: latents, mask and the masked picture's latents side by side."""
    return diffusers.StableDiffusionInpaintPipeline(
        **_sd_parts() | {"unet": unet(in_channels=9, out_channels=4)}
    )


def instruct_pix2pix() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionInstructPix2PixPipeline(
        **_sd_parts() | {"unet": unet(in_channels=8, out_channels=4)}
    )


def sdxl_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionXLImg2ImgPipeline(**parts(sdxl()))


def sdxl_inpaint() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionXLInpaintPipeline(**parts(sdxl()))


def sd3_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusion3Img2ImgPipeline(**parts(sd3()))


def sd3_inpaint() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusion3InpaintPipeline(**parts(sd3(channels=16)))  # it takes no other number


def lcm() -> diffusers.DiffusionPipeline:
    return diffusers.LatentConsistencyModelPipeline(**_lcm_parts())


def lcm_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.LatentConsistencyModelImg2ImgPipeline(**_lcm_parts())


def _lcm_parts() -> dict[str, Any]:
    """Guidance is an input of the network: embedded beside the timestep."""
    scheduler = diffusers.LCMScheduler(**NOISE, set_alpha_to_one=False, original_inference_steps=50)
    return _sd_parts() | {"unet": unet(time_cond_proj_dim=16), "scheduler": scheduler}


def _sd_parts() -> dict[str, Any]:
    return parts(sd()) | _UNSAFE


def parts(pipe: diffusers.DiffusionPipeline) -> dict[str, Any]:
    """Return what a pipeline is made of."""
    return {name: part for name, part in pipe.components.items() if part is not None}
