"""Tiny SANA pipelines: its own kind, Sprint, which takes two steps, and SANA-Video."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.encoders import TEXT_WIDTH, byte_parts, gemma2
from tests.tinies.table import LARGER, ONE_LAYER, REDRAWN, TWO_LAYERS, UNBINNED, Tinies, of
from tests.tinies.wan import CHANNELS, wan_parts

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 8.0}
_LEVELS = 6  # 32 pixels to a latent, as in the real one


def _sprint_parts() -> dict[str, Any]:
    """Guidance is an input of the network, and the steps are angles between picture and noise."""
    scheduler = diffusers.SCMScheduler(prediction_type="trigflow", sigma_data=0.5)
    return _parts(guidance_embeds=True, qk_norm="rms_norm_across_heads") | {"scheduler": scheduler}


_BLOCKS: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    **ONE_LAYER,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 16,
    "cross_attention_dim": 32,
    "caption_channels": TEXT_WIDTH,
    "sample_size": 32,
}


def _parts(**settings: Any) -> dict[str, Any]:
    transformer = diffusers.SanaTransformer2DModel(**_BLOCKS, **settings)
    scheduler = diffusers.DPMSolverMultistepScheduler(**FLOW | {"flow_shift": 3.0})
    return byte_parts(gemma2(), _autoencoder(), transformer, scheduler)


def _autoencoder() -> diffusers.AutoencoderDC:
    blocks = ("ResBlock",) * (_LEVELS - 1) + ("EfficientViTBlock",)
    scales = ((),) * (_LEVELS - 1) + ((5,),)
    return diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8,) * _LEVELS,
        decoder_block_out_channels=(8,) * _LEVELS,
        encoder_layers_per_block=(1,) * _LEVELS,
        decoder_layers_per_block=(1,) * _LEVELS,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        upsample_block_type="interpolate",
        downsample_block_type="Conv",
        scaling_factor=0.41407,
    )


def sana_video() -> diffusers.DiffusionPipeline:
    return diffusers.SanaVideoPipeline(**_video_parts(diffusers.DPMSolverMultistepScheduler(**FLOW)))


def sana_video_i2v() -> diffusers.DiffusionPipeline:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0)
    return diffusers.SanaImageToVideoPipeline(**_video_parts(scheduler))


def _video_parts(scheduler: Any) -> dict[str, Any]:
    transformer = diffusers.SanaVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        **TWO_LAYERS,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=TEXT_WIDTH,
        sample_size=8,
    )
    return byte_parts(gemma2(), wan_parts()["vae"], transformer, scheduler)


TINIES: Tinies = {
    "sana": of("SanaPipeline", _parts, LARGER | UNBINNED),
    "sana_sprint": of("SanaSprintPipeline", _sprint_parts, LARGER | UNBINNED),
    "sana_sprint_img2img": of(
        "SanaSprintImg2ImgPipeline", _sprint_parts, LARGER | UNBINNED | REDRAWN, "image"
    ),
    "sana_pag": of(
        "SanaPAGPipeline",
        lambda: _parts() | {"pag_applied_layers": "transformer_blocks.0"},
        LARGER | UNBINNED,
    ),
    "sana_controlnet": of(
        "SanaControlNetPipeline",
        lambda: _parts() | {"controlnet": diffusers.SanaControlNetModel(**_BLOCKS)},
        LARGER | UNBINNED,
        "control_image",
    ),
}
