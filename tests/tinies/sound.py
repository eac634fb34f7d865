"""Tiny Stable Audio: sound alone."""

from __future__ import annotations

from diffusers import (
    AutoencoderOobleck,
    DiffusionPipeline,
    EDMDPMSolverMultistepScheduler,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
)
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, t5


def stable_audio() -> DiffusionPipeline:
    transformer = StableAudioDiTModel(
        sample_size=64,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_attention_heads=1,
        cross_attention_dim=TEXT_WIDTH,
        cross_attention_input_dim=TEXT_WIDTH,
        global_states_input_dim=2 * TEXT_WIDTH,
        time_proj_dim=8,
    )
    vae = AutoencoderOobleck(
        encoder_hidden_size=8,
        downsampling_ratios=[2, 4, 4],
        decoder_channels=8,
        decoder_input_channels=8,
        channel_multiples=[1, 1, 1],
        sampling_rate=8000,
    )
    return StableAudioPipeline(
        tokenizer=ByT5Tokenizer(model_max_length=32),
        text_encoder=t5(),
        projection_model=StableAudioProjectionModel(TEXT_WIDTH, TEXT_WIDTH, min_value=0, max_value=32),
        transformer=transformer,
        vae=vae,
        scheduler=EDMDPMSolverMultistepScheduler(solver_order=2, prediction_type="v_prediction"),
    )
