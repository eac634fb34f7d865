"""Tiny DreamLite, small enough for a phone: from text, or from a picture too."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.encoders import TEXT_WIDTH, qwen3_vl, sight_processor, sight_tokenizer
from tests.tinies.table import STEPS, Tinies, of


def _parts() -> dict[str, Any]:
    denoiser = diffusers.DreamLiteUNetModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
        up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"),
        block_out_channels=(16, 32),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        layers_per_block=1,
        norm_num_groups=4,
        transformer_layers_per_block=1,
    )
    autoencoder = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    return {
        "text_encoder": qwen3_vl(num_layers=2),
        "tokenizer": sight_tokenizer(),
        "processor": sight_processor(),
        "vae": autoencoder,
        "unet": denoiser,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


_SIZE = STEPS | {"height": 32, "width": 32, "max_sequence_length": 100}
TINIES: Tinies = {
    "dreamlite": of("DreamLitePipeline", _parts, _SIZE),
    "dreamlite_mobile": of("DreamLiteMobilePipeline", _parts, _SIZE),
}
