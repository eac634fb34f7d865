"""Tiny Stable Diffusion pipelines that a ControlNet guides, or a perturbed attention (PAG)."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AnimateDiffPAGPipeline,
    ControlNetModel,
    DiffusionPipeline,
    MultiControlNetModel,
    StableDiffusion3PAGPipeline,
    StableDiffusionControlNetImg2ImgPipeline,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPAGImg2ImgPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPAGPipeline,
    UNet2DConditionModel,
)

from tests.tinies.image import sd, sd3, sdxl, unet_xl
from tests.tinies.image_edits import parts
from tests.tinies.video import animatediff

UNSAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def sd_controlnet() -> DiffusionPipeline:
    return StableDiffusionControlNetPipeline(**sd_controlled(), **UNSAFE)


def sd_controlnets() -> DiffusionPipeline:
    """Two ControlNets, each with an image of its own."""
    given = parts(sd())
    nets = MultiControlNetModel([_controlnet(given["unet"]), _controlnet(given["unet"])])
    return StableDiffusionControlNetPipeline(**given, controlnet=nets, **UNSAFE)


def sd_controlnet_img2img() -> DiffusionPipeline:
    return StableDiffusionControlNetImg2ImgPipeline(**sd_controlled(), **UNSAFE)


def sd_controlnet_inpaint() -> DiffusionPipeline:
    return StableDiffusionControlNetInpaintPipeline(**sd_controlled(), **UNSAFE)


def sdxl_controlnet() -> DiffusionPipeline:
    return StableDiffusionXLControlNetPipeline(**controlled(parts(sdxl())))


def sdxl_controlnet_img2img() -> DiffusionPipeline:
    return StableDiffusionXLControlNetImg2ImgPipeline(**controlled(parts(sdxl())))


def sdxl_instruct_pix2pix() -> DiffusionPipeline:
    return StableDiffusionXLInstructPix2PixPipeline(**parts(sdxl()) | {"unet": unet_xl(in_channels=8)})


def sd_pag() -> DiffusionPipeline:
    return StableDiffusionPAGPipeline(**parts(sd()), **UNSAFE)


def sd_pag_img2img() -> DiffusionPipeline:
    return StableDiffusionPAGImg2ImgPipeline(**parts(sd()), **UNSAFE)


def sdxl_pag() -> DiffusionPipeline:
    return StableDiffusionXLPAGPipeline(**parts(sdxl()))


def sd3_pag() -> DiffusionPipeline:
    return StableDiffusion3PAGPipeline(**parts(sd3()), pag_applied_layers="blocks.0")


def animatediff_pag() -> DiffusionPipeline:
    return AnimateDiffPAGPipeline(**parts(animatediff()))


def sd_controlled() -> dict[str, Any]:
    return controlled(parts(sd()))


def controlled(given: dict[str, Any]) -> dict[str, Any]:
    return given | {"controlnet": _controlnet(given["unet"])}


def _controlnet(denoiser: UNet2DConditionModel) -> ControlNetModel:
    """Return one that halves a picture thrice, as many pixels as a latent has."""
    return ControlNetModel.from_unet(denoiser, conditioning_embedding_out_channels=(8, 8, 8, 8))
