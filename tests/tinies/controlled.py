"""Tiny Stable Diffusion pipelines that a ControlNet guides, or a perturbed attention (PAG)."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.image import sd, sd3, sdxl, unet_xl
from tests.tinies.image_edits import parts
from tests.tinies.video import animatediff

UNSAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def sd_controlnet() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionControlNetPipeline(**sd_controlled(), **UNSAFE)


def sd_controlnets() -> diffusers.DiffusionPipeline:
    """Two ControlNets, each with an image of its own."""
    given = parts(sd())
    nets = diffusers.MultiControlNetModel([_controlnet(given["unet"]), _controlnet(given["unet"])])
    return diffusers.StableDiffusionControlNetPipeline(**given, controlnet=nets, **UNSAFE)


def sd_controlnet_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionControlNetImg2ImgPipeline(**sd_controlled(), **UNSAFE)


def sd_controlnet_inpaint() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionControlNetInpaintPipeline(**sd_controlled(), **UNSAFE)


def sdxl_controlnet() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionXLControlNetPipeline(**controlled(parts(sdxl())))


def sdxl_controlnet_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionXLControlNetImg2ImgPipeline(**controlled(parts(sdxl())))


def sdxl_instruct_pix2pix() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionXLInstructPix2PixPipeline(
        **parts(sdxl()) | {"unet": unet_xl(in_channels=8)}
    )


def sd_pag() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionPAGPipeline(**parts(sd()), **UNSAFE)


def sd_pag_img2img() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionPAGImg2ImgPipeline(**parts(sd()), **UNSAFE)


def sdxl_pag() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionXLPAGPipeline(**parts(sdxl()))


def sd3_pag() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusion3PAGPipeline(**parts(sd3()), pag_applied_layers="blocks.0")


def animatediff_pag() -> diffusers.DiffusionPipeline:
    return diffusers.AnimateDiffPAGPipeline(**parts(animatediff()))


def sd_controlled() -> dict[str, Any]:
    return controlled(parts(sd()))


def controlled(given: dict[str, Any]) -> dict[str, Any]:
    return given | {"controlnet": _controlnet(given["unet"])}


def _controlnet(denoiser: diffusers.UNet2DConditionModel) -> diffusers.ControlNetModel:
    """Return one that halves a picture thrice, as many pixels as a latent has."""
    return diffusers.ControlNetModel.from_unet(denoiser, conditioning_embedding_out_channels=(8, 8, 8, 8))
