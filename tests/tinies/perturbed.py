"""Tiny pipelines with perturbed-attention guidance (PAG) beside those of `tests/tinies/controlled.py`."""

from __future__ import annotations

import diffusers

from tests.tinies.controlled import UNSAFE, controlled, sd_controlled
from tests.tinies.image import sd, sd3, sdxl
from tests.tinies.image_edits import parts
from tests.tinies.table import EDIT, IMAGE, REDRAWN, Tinies

TINIES: Tinies = {
    "sd_pag_inpaint": (
        lambda: diffusers.StableDiffusionPAGInpaintPipeline(**parts(sd()), **UNSAFE),
        EDIT,
        ("image", "mask_image"),
    ),
    "sd_controlnet_pag": (
        lambda: diffusers.StableDiffusionControlNetPAGPipeline(**sd_controlled(), **UNSAFE),
        IMAGE,
        ("image",),
    ),
    "sd_controlnet_pag_inpaint": (
        lambda: diffusers.StableDiffusionControlNetPAGInpaintPipeline(**sd_controlled(), **UNSAFE),
        EDIT,
        ("image", "mask_image", "control_image"),
    ),
    "sdxl_pag_img2img": (
        lambda: diffusers.StableDiffusionXLPAGImg2ImgPipeline(**parts(sdxl())),
        REDRAWN,
        ("image",),
    ),
    "sdxl_pag_inpaint": (
        lambda: diffusers.StableDiffusionXLPAGInpaintPipeline(**parts(sdxl())),
        EDIT,
        ("image", "mask_image"),
    ),
    "sdxl_controlnet_pag": (
        lambda: diffusers.StableDiffusionXLControlNetPAGPipeline(**controlled(parts(sdxl()))),
        IMAGE,
        ("image",),
    ),
    "sdxl_controlnet_pag_img2img": (
        lambda: diffusers.StableDiffusionXLControlNetPAGImg2ImgPipeline(**controlled(parts(sdxl()))),
        EDIT,
        ("image", "control_image"),
    ),
    "sd3_pag_img2img": (
        lambda: diffusers.StableDiffusion3PAGImg2ImgPipeline(**parts(sd3()), pag_applied_layers="blocks.0"),
        EDIT,
        ("image",),
    ),
}
