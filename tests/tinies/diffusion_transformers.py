"""Tiny video pipelines of the first diffusion transformers: Mochi, Allegro, Latte, EasyAnimate."""

from __future__ import annotations

import diffusers
from transformers import ByT5Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

from tests.tinies.encoders import TEXT_WIDTH, language_model, t5
from tests.tinies.image import image_autoencoder
from tests.tinies.table import ONE_LAYER, TWO_LAYERS
from tests.tinies.templates import CHAT

CHANNELS = 4  # of the latents


def mochi() -> diffusers.DiffusionPipeline:
    transformer = diffusers.MochiTransformer3DModel(
        **TWO_LAYERS,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=TEXT_WIDTH,
        time_embed_dim=8,
    )
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=12,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    return diffusers.MochiPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=t5(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    )


def allegro() -> diffusers.DiffusionPipeline:
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=2,
        cross_attention_dim=48,
        sample_height=8,
        sample_width=8,
        sample_frames=6,
        caption_channels=TEXT_WIDTH,
    )
    vae = diffusers.AutoencoderKLAllegro(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
        sample_size=16,  # of a tile, which is 24 frames long: less than one is left black
    )
    return diffusers.AllegroPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=t5(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.EulerAncestralDiscreteScheduler(),
    )


def latte() -> diffusers.DiffusionPipeline:
    transformer = diffusers.LatteTransformer3DModel(
        sample_size=4,
        **ONE_LAYER,
        patch_size=2,
        caption_channels=TEXT_WIDTH,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        cross_attention_dim=32,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        video_length=4,
    )
    return diffusers.LattePipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=t5(),
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )


def easyanimate() -> diffusers.DiffusionPipeline:
    text = language_model(2) | {
        "bos_token_id": None,
        "eos_token_id": 1,  # ByT5's
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }
    sight = {"depth": 1, "embed_dim": 32, "hidden_size": TEXT_WIDTH, "num_heads": 2}
    transformer = diffusers.EasyAnimateTransformer3DModel(
        **ONE_LAYER,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        time_embed_dim=8,
        text_embed_dim=TEXT_WIDTH,
        mmdit_layers=1,
        sample_width=16,
        sample_height=16,
        patch_size=2,
    )
    vae = diffusers.AutoencoderKLMagvit(
        block_out_channels=[8, 8, 8, 8],
        latent_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
        spatial_group_norm=False,
    )
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = CHAT.replace("message['content']", "message['content'][0]['text']")
    return diffusers.EasyAnimatePipeline(
        tokenizer=tokenizer,
        text_encoder=Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=sight)),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
