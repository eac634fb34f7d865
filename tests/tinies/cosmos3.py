"""Tiny Cosmos 3: one transformer over text, frames and sound, packed into one sequence without a batch."""

from __future__ import annotations

import diffusers

from tests.tinies.encoders import TEXT_WIDTH, chat_tokenizer

CHANNELS = 4  # of the latents of frames
SOUND_CHANNELS = 4


def cosmos3() -> diffusers.DiffusionPipeline:
    tokenizer = chat_tokenizer()
    tokenizer.add_tokens(["<|vision_start|>"])
    transformer = diffusers.Cosmos3OmniTransformer(
        head_dim=16,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        latent_channel=CHANNELS,
        latent_patch_size=2,
        patch_latent_dim=4 * CHANNELS,
        num_attention_heads=2,
        num_hidden_layers=1,
        num_key_value_heads=1,
        vocab_size=385,  # of bytes, and the mark before the frames
        sound_gen=True,
        sound_dim=SOUND_CHANNELS,
        sound_latent_fps=25.0,
        rope_axes_dim=(4, 2, 2),
    )
    sound = diffusers.Cosmos3AVAEAudioTokenizer(
        sampling_rate=800,  # 32 samples to a latent: 25 latents a second
        vocoder_input_dim=SOUND_CHANNELS,
        dec_dim=8,
        dec_c_mults=(1, 2),
        dec_strides=(4, 8),
        encoder_enabled=False,
    )
    return diffusers.Cosmos3OmniPipeline(
        transformer=transformer,
        text_tokenizer=tokenizer,
        vae=autoencoder(),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=10.0
        ),
        sound_tokenizer=sound,
        enable_safety_checker=False,
    )


def autoencoder() -> diffusers.AutoencoderKLWan:
    return diffusers.AutoencoderKLWan(
        base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * CHANNELS,
        latents_std=[0.7] * CHANNELS,
    )
