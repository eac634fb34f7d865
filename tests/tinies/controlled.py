"""Tiny Stable Diffusion pipelines that a ControlNet guides, a T2I adapter, or a perturbed attention (PAG)."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.encoders import TEXT_WIDTH
from tests.tinies.image import UNET_CHANNELS, sd3, sdxl, unet, unet_xl
from tests.tinies.image_edits import sd_parts
from tests.tinies.table import CONTROLLED, EDIT, FILLED, IMAGE, MASKED, REDRAWN, Tinies, of, parts
from tests.tinies.video import animatediff


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


_MODE = {"control_mode": 1}  # of a union: which kind of picture controls


def _adapted(given: dict[str, Any]) -> dict[str, Any]:
    return given | {"adapter": diffusers.T2IAdapter(channels=list(UNET_CHANNELS), num_res_blocks=1)}


def _union() -> dict[str, Any]:
    given = parts(sdxl())
    network = diffusers.ControlNetUnionModel.from_unet(given["unet"], load_weights_from_unet=False)
    width = UNET_CHANNELS[0]
    network = diffusers.ControlNetUnionModel.from_config(
        network.config,
        conditioning_embedding_out_channels=(8, 8, 8, 8),
        num_trans_channel=width,
        num_trans_head=2,
        num_proj_channel=width,
    )
    return given | {"controlnet": network}


def _sd3_controlled(extra_channels: int = 0) -> dict[str, Any]:
    """It is made of another transformer: diffusers writes the number of its layers into that one's config."""
    network = diffusers.SD3ControlNetModel.from_transformer(
        sd3().transformer, num_layers=1, num_extra_conditioning_channels=extra_channels
    )
    return parts(sd3()) | {"controlnet": network}


def _sd3_perturbed() -> dict[str, Any]:
    return parts(sd3()) | {"pag_applied_layers": "blocks.0"}


def _moving() -> dict[str, Any]:
    """Return AnimateDiff's parts, with the ControlNet of its U-Net as that is of pictures."""
    return controlled(parts(animatediff()) | {"unet": unet()})


def _sparse() -> diffusers.DiffusionPipeline:
    """Some frames control, and the network fills in the others."""
    network = diffusers.SparseControlNetModel(
        block_out_channels=UNET_CHANNELS,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=TEXT_WIDTH,
        motion_num_attention_heads=2,
        conditioning_embedding_out_channels=(8, 8, 8, 8),
        conditioning_channels=3,
        use_simplified_condition_embedding=False,
    )
    return diffusers.AnimateDiffSparseControlNetPipeline(**parts(animatediff()) | {"controlnet": network})


_CLIP = IMAGE | {"num_frames": 4}


TINIES: Tinies = {
    "sd_controlnet": of("StableDiffusionControlNetPipeline", sd_controlled, IMAGE, "image"),
    "sd_controlnets": (sd_controlnets, IMAGE, {"image": 2}),
    "sd_controlnet_img2img": of("StableDiffusionControlNetImg2ImgPipeline", sd_controlled, EDIT, *CONTROLLED),
    "sd_controlnet_inpaint": of("StableDiffusionControlNetInpaintPipeline", sd_controlled, EDIT, *FILLED),
    "sdxl_controlnet": of("StableDiffusionXLControlNetPipeline", sdxl_controlled, IMAGE, "image"),
    "sdxl_controlnet_img2img": of(
        "StableDiffusionXLControlNetImg2ImgPipeline", sdxl_controlled, EDIT, *CONTROLLED
    ),
    "sdxl_instruct_pix2pix": (sdxl_instruct_pix2pix, IMAGE, ("image",)),
    "sd_pag": of("StableDiffusionPAGPipeline", sd_parts, IMAGE),
    "sd_pag_img2img": of("StableDiffusionPAGImg2ImgPipeline", sd_parts, REDRAWN, "image"),
    "sdxl_pag": of("StableDiffusionXLPAGPipeline", sdxl, IMAGE),
    "sd3_pag": of("StableDiffusion3PAGPipeline", _sd3_perturbed, IMAGE),
    "sd_pag_inpaint": of("StableDiffusionPAGInpaintPipeline", sd_parts, EDIT, *MASKED),
    "sd_controlnet_pag": of("StableDiffusionControlNetPAGPipeline", sd_controlled, IMAGE, "image"),
    "sd_controlnet_pag_inpaint": of(
        "StableDiffusionControlNetPAGInpaintPipeline", sd_controlled, EDIT, *FILLED
    ),
    "sdxl_pag_img2img": of("StableDiffusionXLPAGImg2ImgPipeline", sdxl, REDRAWN, "image"),
    "sdxl_pag_inpaint": of("StableDiffusionXLPAGInpaintPipeline", sdxl, EDIT, *MASKED),
    "sdxl_controlnet_pag": of("StableDiffusionXLControlNetPAGPipeline", sdxl_controlled, IMAGE, "image"),
    "sdxl_controlnet_pag_img2img": of(
        "StableDiffusionXLControlNetPAGImg2ImgPipeline", sdxl_controlled, EDIT, *CONTROLLED
    ),
    "sd3_pag_img2img": of("StableDiffusion3PAGImg2ImgPipeline", _sd3_perturbed, EDIT, "image"),
    "animatediff_controlnet": of("AnimateDiffControlNetPipeline", _moving, _CLIP, conditioning_frames=4),
    "animatediff_sparse": (
        _sparse,
        _CLIP | {"controlnet_frame_indices": [0, 1, 2, 3]},
        {"conditioning_frames": 4},
    ),
    "animatediff_v2v_controlnet": of(
        "AnimateDiffVideoToVideoControlNetPipeline",
        _moving,
        IMAGE | {"strength": 0.8},
        video=4,
        conditioning_frames=4,
    ),
    "sd_adapter": of("StableDiffusionAdapterPipeline", lambda: _adapted(sd_parts()), IMAGE, "image"),
    "sdxl_adapter": of("StableDiffusionXLAdapterPipeline", lambda: _adapted(parts(sdxl())), IMAGE, "image"),
    "sdxl_controlnet_inpaint": of(
        "StableDiffusionXLControlNetInpaintPipeline", sdxl_controlled, EDIT, *FILLED
    ),
    "sdxl_union": of("StableDiffusionXLControlNetUnionPipeline", _union, IMAGE | _MODE, "control_image"),
    "sdxl_union_img2img": of(
        "StableDiffusionXLControlNetUnionImg2ImgPipeline", _union, EDIT | _MODE, *CONTROLLED
    ),
    "sdxl_union_inpaint": of(
        "StableDiffusionXLControlNetUnionInpaintPipeline", _union, EDIT | _MODE, *FILLED
    ),
    "sd3_controlnet": of("StableDiffusion3ControlNetPipeline", _sd3_controlled, IMAGE, "control_image"),
    "sd3_controlnet_inpaint": of(
        "StableDiffusion3ControlNetInpaintingPipeline",
        lambda: _sd3_controlled(extra_channels=1),
        IMAGE,
        "control_image",
        "control_mask",
    ),
}
