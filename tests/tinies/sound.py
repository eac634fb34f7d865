"""Tiny pipelines that make sound alone: Stable Audio and ACE-Step."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from diffusers.pipelines.ace_step import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
)
from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import StableAudio3DurationEmbedder

from tests.tinies.encoders import TEXT_WIDTH, language_model, t5
from tests.tinies.table import STEPS, TWO_LAYERS, Tinies

_LATENTS = 8  # channels


def stable_audio() -> diffusers.DiffusionPipeline:
    transformer = diffusers.StableAudioDiTModel(
        sample_size=64,
        in_channels=_LATENTS,
        out_channels=_LATENTS,
        **TWO_LAYERS,
        num_key_value_attention_heads=1,
        cross_attention_dim=TEXT_WIDTH,
        cross_attention_input_dim=TEXT_WIDTH,
        global_states_input_dim=2 * TEXT_WIDTH,
        time_proj_dim=8,
    )
    return diffusers.StableAudioPipeline(
        tokenizer=transformers.ByT5Tokenizer(model_max_length=32),
        text_encoder=t5(),
        projection_model=diffusers.StableAudioProjectionModel(
            TEXT_WIDTH, TEXT_WIDTH, min_value=0, max_value=32
        ),
        transformer=transformer,
        vae=_oobleck(),
        scheduler=diffusers.EDMDPMSolverMultistepScheduler(solver_order=2, prediction_type="v_prediction"),
    )


def ace_step() -> diffusers.DiffusionPipeline:
    """Music with words: a language model reads the prompt, and an encoder of its own the lyrics."""
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
    }
    heard = sizes | {"audio_acoustic_hidden_dim": _LATENTS, "pool_window_size": 2}
    levels = {"fsq_dim": 32, "fsq_input_levels": [4, 4, 4], "fsq_input_num_quantizers": 1}
    text = sizes | {"num_hidden_layers": 2, "vocab_size": 384, "bos_token_id": None, "eos_token_id": 1}
    return diffusers.AceStepPipeline(
        tokenizer=transformers.ByT5Tokenizer(),
        text_encoder=transformers.Qwen3Model(transformers.Qwen3Config(**text)),
        condition_encoder=AceStepConditionEncoder(
            **sizes,
            text_hidden_dim=32,
            timbre_hidden_dim=_LATENTS,
            num_lyric_encoder_hidden_layers=1,
            num_timbre_encoder_hidden_layers=1,
        ),
        audio_tokenizer=AceStepAudioTokenizer(**heard, **levels, num_attention_pooler_hidden_layers=1),
        audio_token_detokenizer=AceStepAudioTokenDetokenizer(**heard, num_attention_pooler_hidden_layers=1),
        transformer=diffusers.AceStepTransformer1DModel(
            **sizes,
            num_hidden_layers=2,
            in_channels=3 * _LATENTS,
            audio_acoustic_hidden_dim=_LATENTS,
            patch_size=2,
            sliding_window=16,
        ),
        vae=_oobleck(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1),
    )


def stable_audio_3() -> diffusers.DiffusionPipeline:
    text = language_model(2) | {"head_dim": 16, "layer_types": ["full_attention"] * 2}
    return diffusers.StableAudio3Pipeline(
        tokenizer=transformers.ByT5Tokenizer(model_max_length=32),
        text_encoder=transformers.T5GemmaEncoderModel(
            transformers.T5GemmaConfig(encoder=text, decoder=text, is_encoder_decoder=False)
        ),
        duration_embedder=StableAudio3DurationEmbedder(output_dim=TEXT_WIDTH, fourier_dim=16),
        transformer=diffusers.StableAudio3DiTModel(
            io_channels=_LATENTS,
            patch_size=1,
            embed_dim=32,
            depth=2,
            num_heads=2,
            cond_token_dim=TEXT_WIDTH,
            global_cond_dim=TEXT_WIDTH,
            local_add_cond_dim=1 + _LATENTS,  # a mask, and the masked sound's latents
            timestep_features_dim=16,
            ff_mult=2,
            num_memory_tokens=3,
            use_differential_attention=False,
        ),
        vae=diffusers.AutoencoderSAME(
            audio_channels=2,
            patch_size=2,
            encoder_channels=8,
            encoder_c_mults=(2,),
            encoder_strides=(2,),
            encoder_transformer_depths=(1,),
            latent_dim=_LATENTS,
            use_differential_attention=False,
            dim_heads=4,
            ff_mult=2,
            sampling_rate=64,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, stochastic_sampling=False),
    )


def _oobleck() -> diffusers.AutoencoderOobleck:
    return diffusers.AutoencoderOobleck(
        encoder_hidden_size=8,
        downsampling_ratios=[2, 4, 4],
        decoder_channels=8,
        decoder_input_channels=_LATENTS,
        channel_multiples=[1, 1, 1],
        sampling_rate=8000,
    )


TINIES: Tinies = {
    "ace_step": (ace_step, STEPS | {"audio_duration": 0.4, "lyrics": "softly"}, ()),
    "stable_audio_3": (stable_audio_3, STEPS | {"duration": 1.0}, ()),
}
