"""A tiny Wan-Animate 2, which is modular only: a picture moves as a video does, segment by segment."""

from __future__ import annotations

import diffusers
from transformers import CLIPVisionConfig, CLIPVisionModel

from tests.tinies import wan
from tests.tinies.encoders import TEXT_WIDTH
from tests.tinies.table import modular_of

CHANNELS = 16  # of latents: what the transformer takes besides them is fixed to 20 more
SIGHT_WIDTH, SIGHT_SIZE = 1280, 224  # fixed too


def wan_animate_2() -> diffusers.ModularPipeline:
    transformer = diffusers.WanAnimate2Transformer3DModel(
        in_dim=2 * CHANNELS + 4,
        out_dim=CHANNELS,
        dim=24,
        ffn_dim=32,
        freq_dim=16,
        text_dim=TEXT_WIDTH,
        num_heads=2,
        num_layers=2,
    )
    sight = CLIPVisionConfig(
        hidden_size=SIGHT_WIDTH,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIGHT_SIZE,
        patch_size=SIGHT_SIZE // 2,
    )
    return modular_of(
        diffusers.WanAnimate2ModularPipeline,
        {
            **wan.wan_parts(channels=CHANNELS),
            "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(
                shift=5.0
            ),  # its steps are given a generator
            "transformer": transformer,
            "image_encoder": CLIPVisionModel(sight),
        },
    )
