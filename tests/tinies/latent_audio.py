"""Tiny AudioLDM pipelines: a U-Net draws a spectrogram from text, and a vocoder sounds it."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers

from tests.tinies.encoders import TEXT_WIDTH, roberta_tokenizer, t5, t5_tokenizer
from tests.tinies.image import NOISE, UNET_CHANNELS, unet
from tests.tinies.table import STEPS, Tinies

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
    return transformers.ClapTextConfig(
        vocab_size=384,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=TEXT_WIDTH,
    )


TINIES: Tinies = {
    "audioldm": (audioldm, STEPS | {"audio_length_in_s": 0.2}, ()),
    "audioldm2": (audioldm2, STEPS | {"audio_length_in_s": 0.2}, ()),
}
