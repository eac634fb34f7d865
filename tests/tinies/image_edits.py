"""Tiny Stable Diffusion pipelines that start from a picture, and latent consistency models."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.image import NOISE, sd, sd3, sdxl, unet
from tests.tinies.table import EDIT, IMAGE, MASKED, REDRAWN, STEPS, Tinies, of, parts

UNSAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _beside(in_channels: int) -> dict[str, Any]:
    return sd_parts() | {"unet": unet(in_channels=in_channels, out_channels=4)}


def _lcm_parts() -> dict[str, Any]:
    """Guidance is an input of the network: embedded beside the timestep."""
    scheduler = diffusers.LCMScheduler(**NOISE, set_alpha_to_one=False, original_inference_steps=50)
    return sd_parts() | {"unet": unet(time_cond_proj_dim=16), "scheduler": scheduler}


def sd_parts() -> dict[str, Any]:
    return parts(sd()) | UNSAFE


TINIES: Tinies = {
    "sd_img2img": of("StableDiffusionImg2ImgPipeline", sd_parts, REDRAWN, "image"),
    # The kind with weights of its own: latents, mask and the masked picture's latents side by side.
    "sd_inpaint": of("StableDiffusionInpaintPipeline", lambda: _beside(9), EDIT, *MASKED),
    "instruct_pix2pix": of("StableDiffusionInstructPix2PixPipeline", lambda: _beside(8), STEPS, "image"),
    "sdxl_img2img": of("StableDiffusionXLImg2ImgPipeline", sdxl, REDRAWN, "image"),
    "sdxl_inpaint": of("StableDiffusionXLInpaintPipeline", sdxl, EDIT, *MASKED),
    "sd3_img2img": of("StableDiffusion3Img2ImgPipeline", sd3, EDIT, "image"),
    # It takes no other number of channels.
    "sd3_inpaint": of("StableDiffusion3InpaintPipeline", lambda: sd3(channels=16), EDIT, *MASKED),
    "lcm": of("LatentConsistencyModelPipeline", _lcm_parts, IMAGE),
    "lcm_img2img": of("LatentConsistencyModelImg2ImgPipeline", _lcm_parts, REDRAWN, "image"),
}
