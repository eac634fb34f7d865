"""Tiny pipelines that make sound alone: Stable Audio, ACE-Step, and AudioLDM by way of a spectrogram."""

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

from tests.tinies.encoders import READER, TEXT_WIDTH, language_model, roberta_tokenizer, t5, t5_tokenizer
from tests.tinies.image import NOISE, UNET_CHANNELS, unet
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


_BINS = 8  # of the spectrogram


def audioldm() -> diffusers.DiffusionPipeline:
    return diffusers.AudioLDMPipeline(
        **_sounding(),
        text_encoder=transformers.ClapTextModelWithProjection(_clap_text()),
        unet=unet(
            cross_attention_dim=UNET_CHANNELS,
            class_embed_type="simple_projection",
            projection_class_embeddings_input_dim=TEXT_WIDTH,
            class_embeddings_concat=True,
        ),
    )


def audioldm2() -> diffusers.DiffusionPipeline:
    """A language model goes on from both encoders' texts, and the network attends to that too."""
    denoiser = diffusers.AudioLDM2UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=UNET_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=(TEXT_WIDTH, TEXT_WIDTH),
    )
    return diffusers.AudioLDM2Pipeline(
        **_sounding(),
        text_encoder=_clap(),
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
        projection_model=diffusers.AudioLDM2ProjectionModel(TEXT_WIDTH, TEXT_WIDTH, TEXT_WIDTH),
        language_model=transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=8, n_positions=128, n_embd=TEXT_WIDTH, n_layer=2, n_head=2, max_new_tokens=4
            )
        ),
        feature_extractor=transformers.ClapFeatureExtractor(),
        unet=denoiser,
    )


def _sounding() -> dict[str, Any]:
    """Return what both have: an autoencoder of spectrograms, the vocoder, and the first tokenizer."""
    autoencoder = diffusers.AutoencoderKL(
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
    )
    vocoder = transformers.SpeechT5HifiGanConfig(
        model_in_dim=_BINS,
        sampling_rate=640,  # so that 0.2 s has a few latents
        upsample_initial_channel=8,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        normalize_before=False,
    )
    return {
        "tokenizer": roberta_tokenizer(),
        "vae": autoencoder,
        "vocoder": transformers.SpeechT5HifiGan(vocoder),
        "scheduler": diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
    }


def _clap() -> transformers.ClapModel:
    hearing = transformers.ClapAudioConfig(
        spec_size=8,
        window_size=4,
        num_mel_bins=8,
        depths=[1, 1],
        num_attention_heads=[1, 1],
        patch_embeds_hidden_size=8,
        hidden_size=16,
        projection_dim=TEXT_WIDTH,
        patch_size=2,
        patch_stride=2,
    )
    config = transformers.ClapConfig(
        text_config=_clap_text().to_dict(), audio_config=hearing.to_dict(), projection_dim=TEXT_WIDTH
    )
    return transformers.ClapModel(config)


def _clap_text() -> transformers.ClapTextConfig:
    return transformers.ClapTextConfig(**READER, projection_dim=TEXT_WIDTH)


TINIES: Tinies = {
    "ace_step": (ace_step, STEPS | {"audio_duration": 0.4, "lyrics": "softly"}, ()),
    "stable_audio_3": (stable_audio_3, STEPS | {"duration": 1.0}, ()),
    "audioldm": (audioldm, STEPS | {"audio_length_in_s": 0.2}, ()),
    "audioldm2": (audioldm2, STEPS | {"audio_length_in_s": 0.2}, ()),
}
