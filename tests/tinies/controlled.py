"""Tiny Stable Diffusion pipelines that a ControlNet guides, or a perturbed attention (PAG)."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.image import sd3, sdxl, unet_xl
from tests.tinies.image_edits import sd_parts
from tests.tinies.table import EDIT, IMAGE, REDRAWN, Tinies, of, parts


def sd_controlnets() -> diffusers.DiffusionPipeline:
    """Two ControlNets, each with an image of its own."""
    given = sd_parts()
    nets = diffusers.MultiControlNetModel([_controlnet(given["unet"]), _controlnet(given["unet"])])
    return diffusers.StableDiffusionControlNetPipeline(**given, controlnet=nets)


def sdxl_instruct_pix2pix() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionXLInstructPix2PixPipeline(
        **parts(sdxl()) | {"unet": unet_xl(in_channels=8)}
    )


def sd_controlled() -> dict[str, Any]:
    return controlled(sd_parts())


def sdxl_controlled() -> dict[str, Any]:
    return controlled(parts(sdxl()))


def controlled(given: dict[str, Any]) -> dict[str, Any]:
    return given | {"controlnet": _controlnet(given["unet"])}


def _controlnet(denoiser: diffusers.UNet2DConditionModel) -> diffusers.ControlNetModel:
    """Return one that halves a picture thrice, as many pixels as a latent has."""
    return diffusers.ControlNetModel.from_unet(denoiser, conditioning_embedding_out_channels=(8, 8, 8, 8))


TINIES: Tinies = {
    "sd_controlnet": of("StableDiffusionControlNetPipeline", sd_controlled, IMAGE, "image"),
    "sd_controlnets": (sd_controlnets, IMAGE, {"image": 2}),
    "sd_controlnet_img2img": of(
        "StableDiffusionControlNetImg2ImgPipeline", sd_controlled, EDIT, "image", "control_image"
    ),
    "sd_controlnet_inpaint": of(
        "StableDiffusionControlNetInpaintPipeline",
        sd_controlled,
        EDIT,
        "image",
        "mask_image",
        "control_image",
    ),
    "sdxl_controlnet": of("StableDiffusionXLControlNetPipeline", sdxl_controlled, IMAGE, "image"),
    "sdxl_controlnet_img2img": of(
        "StableDiffusionXLControlNetImg2ImgPipeline", sdxl_controlled, EDIT, "image", "control_image"
    ),
    "sdxl_instruct_pix2pix": (sdxl_instruct_pix2pix, IMAGE, ("image",)),
    "sd_pag": of("StableDiffusionPAGPipeline", sd_parts, IMAGE),
    "sd_pag_img2img": of("StableDiffusionPAGImg2ImgPipeline", sd_parts, REDRAWN, "image"),
    "sdxl_pag": of("StableDiffusionXLPAGPipeline", sdxl, IMAGE),
    "sd3_pag": (
        lambda: diffusers.StableDiffusion3PAGPipeline(**parts(sd3()), pag_applied_layers="blocks.0"),
        IMAGE,
        (),
    ),
}
