"""Tiny video pipelines of diffusion transformers: Mochi, Allegro, Latte, EasyAnimate, Helios, Motif-Video."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import (
    ByT5Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    SiglipImageProcessor,
    T5Gemma2Encoder,
    T5Gemma2EncoderConfig,
    T5Gemma2TextConfig,
)

from tests.tinies.encoders import (
    BARE_CHAT,
    IMAGE_WIDTH,
    SIGHT,
    TEXT_WIDTH,
    TURNS,
    byte_parts,
    language_model,
    t5,
)
from tests.tinies.image import image_autoencoder
from tests.tinies.table import ONE_LAYER, ONE_OF_EACH, TWO_LAYERS
from tests.tinies.wan import CHANNELS, wan_parts


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
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    return diffusers.MochiPipeline(**byte_parts(t5(), vae, transformer, scheduler))


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
    scheduler = diffusers.EulerAncestralDiscreteScheduler()
    return diffusers.AllegroPipeline(**byte_parts(t5(), vae, transformer, scheduler))


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
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    return diffusers.LattePipeline(**byte_parts(t5(), image_autoencoder(), transformer, scheduler))


def easyanimate() -> diffusers.DiffusionPipeline:
    text = language_model(2, bos_token_id=None, eos_token_id=1, rope_parameters=TURNS)  # ByT5's
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
    tokenizer.chat_template = BARE_CHAT.replace("message['content']", "message['content'][0]['text']")
    return diffusers.EasyAnimatePipeline(
        tokenizer=tokenizer,
        text_encoder=Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=sight)),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def helios() -> diffusers.DiffusionPipeline:
    scheduler = diffusers.HeliosScheduler(stages=1, stage_range=[0, 1], use_dynamic_shifting=True)
    return diffusers.HeliosPipeline(**wan_parts() | {"scheduler": scheduler}, transformer=_helios())


def helios_pyramid() -> diffusers.DiffusionPipeline:
    # With diffusers' own gamma, 1/3, the noise's covariance has no Cholesky factor on a CPU.
    parts = wan_parts() | {"scheduler": diffusers.HeliosDMDScheduler(gamma=0.3)}
    return diffusers.HeliosPyramidPipeline(**parts, transformer=_helios(), is_distilled=True)


def _helios() -> diffusers.HeliosTransformer3DModel:
    return diffusers.HeliosTransformer3DModel(
        **TWO_LAYERS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=32,
        ffn_dim=64,
        rope_dim=(8, 4, 4),
    )


def motif() -> diffusers.DiffusionPipeline:
    return diffusers.MotifVideoPipeline(**_motif_parts(), transformer=_motif())


def motif_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.MotifVideoImage2VideoPipeline(
        **_motif_parts(),
        transformer=_motif(image_embed_dim=IMAGE_WIDTH),
        feature_extractor=SiglipImageProcessor(size={"height": 32, "width": 32}),
    )


def _motif_parts() -> dict[str, Any]:
    # The rate of dropout transformers' encoder reads and does not set.
    text = T5Gemma2TextConfig(**language_model(2, head_dim=16, dropout_rate=0.0))
    config = T5Gemma2EncoderConfig(text_config=text, vision_config=SIGHT, mm_tokens_per_image=4)
    return wan_parts() | {
        "text_encoder": T5Gemma2Encoder(config),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        "guider": diffusers.AdaptiveProjectedGuidance(guidance_scale=8.0),
    }


def _motif(**settings: Any) -> diffusers.MotifVideoTransformer3DModel:
    return diffusers.MotifVideoTransformer3DModel(
        in_channels=2 * CHANNELS + 1,  # the noise, a first frame, and where it is
        out_channels=CHANNELS,
        **ONE_OF_EACH,
        text_embed_dim=TEXT_WIDTH,
        rope_axes_dim=(4, 6, 6),
        **settings,
    )
