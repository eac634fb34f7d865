"""Tiny pipelines that a T2I adapter guides, or a ControlNet: unions, and those of inpainting."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.controlled import controlled, sdxl_controlled
from tests.tinies.encoders import TEXT_WIDTH
from tests.tinies.image import UNET_CHANNELS, sd, sd3, sdxl, unet
from tests.tinies.image_edits import UNSAFE
from tests.tinies.table import EDIT, IMAGE, Tinies, of, parts
from tests.tinies.video import animatediff

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
    "sd_adapter": (
        lambda: diffusers.StableDiffusionAdapterPipeline(**_adapted(parts(sd())), **UNSAFE),
        IMAGE,
        ("image",),
    ),
    "sdxl_adapter": of("StableDiffusionXLAdapterPipeline", lambda: _adapted(parts(sdxl())), IMAGE, "image"),
    "sdxl_controlnet_inpaint": of(
        "StableDiffusionXLControlNetInpaintPipeline",
        sdxl_controlled,
        EDIT,
        "image",
        "mask_image",
        "control_image",
    ),
    "sdxl_union": of("StableDiffusionXLControlNetUnionPipeline", _union, IMAGE | _MODE, "control_image"),
    "sdxl_union_img2img": of(
        "StableDiffusionXLControlNetUnionImg2ImgPipeline", _union, EDIT | _MODE, "image", "control_image"
    ),
    "sdxl_union_inpaint": of(
        "StableDiffusionXLControlNetUnionInpaintPipeline",
        _union,
        EDIT | _MODE,
        "image",
        "mask_image",
        "control_image",
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
