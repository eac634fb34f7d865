"""Tiny DeepFloyd IF pipelines: pixels from text, and pictures made larger, each over a picture too."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines.deepfloyd_if import IFWatermarker
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, t5
from tests.tinies.image_edits import UNSAFE
from tests.tinies.kandinsky import cross_attending_unet
from tests.tinies.table import IMAGE, MASKED, REDRAWN, Tinies, of

_SMALLER = ("image", "original_image")
_AS_WRITTEN = {"clean_caption": False}  # cleaning needs packages that are not there


def _base() -> dict[str, Any]:
    return _parts(in_channels=3)


def _larger() -> dict[str, Any]:
    """Add a second scheduler, which puts noise on the smaller picture."""
    return _parts(in_channels=6, class_embed_type="timestep") | {
        "image_noising_scheduler": diffusers.DDPMScheduler()
    }


def _parts(**settings: Any) -> dict[str, Any]:
    denoiser = cross_attending_unet(
        sample_size=16,
        out_channels=6,  # the noise, and its variance
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        encoder_hid_dim=TEXT_WIDTH,
        cross_attention_norm="group_norm",
        **settings,
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": t5(),
        "unet": denoiser,
        "scheduler": diffusers.DDPMScheduler(
            thresholding=True, sample_max_value=1.5, variance_type="learned_range"
        ),
        "watermarker": None,
        **UNSAFE,
    }


TINIES: Tinies = {
    "if": of("IFPipeline", _base, IMAGE | _AS_WRITTEN),
    "if_img2img": of("IFImg2ImgPipeline", _base, REDRAWN | _AS_WRITTEN, "image"),
    "if_inpaint": of("IFInpaintingPipeline", _base, REDRAWN | _AS_WRITTEN, *MASKED),
    "if_sr": of("IFSuperResolutionPipeline", _larger, IMAGE | _AS_WRITTEN, "image"),
    # It alone loads with a watermarker only, which marks PIL images and no arrays.
    "if_sr_img2img": of(
        "IFImg2ImgSuperResolutionPipeline",
        lambda: _larger() | {"watermarker": IFWatermarker()},
        REDRAWN | _AS_WRITTEN,
        *_SMALLER,
    ),
    "if_sr_inpaint": of(
        "IFInpaintingSuperResolutionPipeline", _larger, REDRAWN | _AS_WRITTEN, *_SMALLER, "mask_image"
    ),
}
