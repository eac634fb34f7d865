"""A tiny MiniMax-H3, which is modular only: picture and stereo sound from one packed sequence."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies import encoders
from tests.tinies.table import TWO_LAYERS, modular_of

CHANNELS, AUDIO_CHANNELS = 4, 4
TEXT_LAYERS = 51  # the pipeline reads the 50th hidden state, which must not be the last


def minimax_h3() -> diffusers.ModularPipeline:
    transformer: dict[str, Any] = {
        **TWO_LAYERS,
        "hidden_size": 32,
        "num_refiner_layers": 1,
        "ffn_dim": 32,
        "in_channels": CHANNELS,
        "audio_in_channels": AUDIO_CHANNELS,
        "text_dim": encoders.TEXT_WIDTH,
        "freq_dim": 16,
        "time_embed_hidden_dim": 32,
        "time_embed_dim": 32,
        "rope_freq_dim": 2,
    }
    vae = diffusers.AutoencoderKLMiniMaxH3(
        latent_channels=CHANNELS,
        block_out_channels=(4, 4, 4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
        decoder_num_layers=1,
        decoder_num_attention_heads=2,
        decoder_attention_head_dim=16,
        decoder_num_register_tokens=1,
        decoder_ffn_mult=1,
        latents_mean=(0.0,) * CHANNELS,
        latents_std=(1.0,) * CHANNELS,
    )
    audio = diffusers.AutoencoderKLMiniMaxH3Audio(
        encoder_dim=4,
        latent_dim=64,
        latent_channels=AUDIO_CHANNELS,
        num_attention_heads=2,
        decoder_dim=128,
        latents_mean=[0.0] * AUDIO_CHANNELS,
        latents_std=[1.0] * AUDIO_CHANNELS,
    )
    pipe = modular_of(
        diffusers.MiniMaxH3ModularPipeline,
        {
            "text_encoder": encoders.qwen3_vl(num_layers=TEXT_LAYERS),
            "tokenizer": encoders.sight_tokenizer(),
            "processor": encoders.sight_processor(),
            "vae": vae,
            "audio_vae": audio,
            "scheduler": diffusers.MiniMaxH3Scheduler(shift=12.0),
            "audio_scheduler": diffusers.MiniMaxH3Scheduler(shift=3.0),
            "transformer": diffusers.MiniMaxH3Transformer3DModel(**transformer),
            "transformer_ref": diffusers.MiniMaxH3Transformer3DModel(**transformer),
        },
    )
    # What images and videos that it refers to are scaled to; the published 2048 and 768 take minutes here.
    pipe.update_components(canvas_short_edge=64, canvas_max_pixels=64 * 128, reference_image_short_edge=64)
    return pipe
