"""Tiny pipelines with perturbed-attention guidance (PAG) beside those of `tests/tinies/controlled.py`."""

from __future__ import annotations

import diffusers

from tests.tinies.controlled import sd_controlled, sdxl_controlled
from tests.tinies.image import sd3, sdxl
from tests.tinies.image_edits import sd_parts
from tests.tinies.table import EDIT, IMAGE, REDRAWN, Tinies, of, parts

TINIES: Tinies = {
    "sd_pag_inpaint": of("StableDiffusionPAGInpaintPipeline", sd_parts, EDIT, "image", "mask_image"),
    "sd_controlnet_pag": of("StableDiffusionControlNetPAGPipeline", sd_controlled, IMAGE, "image"),
    "sd_controlnet_pag_inpaint": of(
        "StableDiffusionControlNetPAGInpaintPipeline",
        sd_controlled,
        EDIT,
        "image",
        "mask_image",
        "control_image",
    ),
    "sdxl_pag_img2img": of("StableDiffusionXLPAGImg2ImgPipeline", sdxl, REDRAWN, "image"),
    "sdxl_pag_inpaint": of("StableDiffusionXLPAGInpaintPipeline", sdxl, EDIT, "image", "mask_image"),
    "sdxl_controlnet_pag": of("StableDiffusionXLControlNetPAGPipeline", sdxl_controlled, IMAGE, "image"),
    "sdxl_controlnet_pag_img2img": of(
        "StableDiffusionXLControlNetPAGImg2ImgPipeline", sdxl_controlled, EDIT, "image", "control_image"
    ),
    "sd3_pag_img2img": (
        lambda: diffusers.StableDiffusion3PAGImg2ImgPipeline(**parts(sd3()), pag_applied_layers="blocks.0"),
        EDIT,
        ("image",),
    ),
}
