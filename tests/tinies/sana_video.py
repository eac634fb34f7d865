"""Tiny SANA-Video pipelines: from text, and from a picture."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.encoders import TEXT_WIDTH, gemma2
from tests.tinies.table import TWO_LAYERS
from tests.tinies.wan import CHANNELS, wan_parts

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 8.0}


def sana_video() -> diffusers.DiffusionPipeline:
    return diffusers.SanaVideoPipeline(**_parts(), scheduler=diffusers.DPMSolverMultistepScheduler(**FLOW))


def sana_video_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.SanaImageToVideoPipeline(
        **_parts(), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0)
    )


def _parts() -> dict[str, Any]:
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
    parts = wan_parts()
    return {
        "tokenizer": parts["tokenizer"],
        "text_encoder": gemma2(),
        "vae": parts["vae"],
        "transformer": transformer,
    }
