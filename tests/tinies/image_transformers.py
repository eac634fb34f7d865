"""Tiny pipelines of transformers that cross-attend to text or read it in one stream, one encoder each."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer

from tests.random_weights import byte_text_encoder
from tests.tinies import encoders
from tests.tinies.image import image_autoencoder
from tests.tinies.table import HEADS, IMAGE, LARGEST, ONE_OF_EACH, TWO_LAYERS, UNBINNED, Tinies, of


def _pixart_parts() -> dict[str, Any]:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        **TWO_LAYERS,
        cross_attention_dim=32,
        caption_channels=encoders.TEXT_WIDTH,
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": encoders.t5(),
        "vae": image_autoencoder(),
        "transformer": transformer,
        "scheduler": diffusers.DPMSolverMultistepScheduler(),
    }


def aura_flow() -> diffusers.DiffusionPipeline:
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        **HEADS,
        joint_attention_dim=encoders.TEXT_WIDTH,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    return diffusers.AuraFlowPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=byte_text_encoder(encoders.TEXT_WIDTH),
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


_COGVIEW: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    **TWO_LAYERS,
    "text_embed_dim": encoders.TEXT_WIDTH,
    "time_embed_dim": 32,
    "condition_dim": 8,
    "pos_embed_max_size": 16,
    "sample_size": 8,
}


def cogview3() -> diffusers.DiffusionPipeline:
    transformer = diffusers.CogView3PlusTransformer2DModel(**_COGVIEW)
    return diffusers.CogView3PlusPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=encoders.t5(),
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )


def cogview4() -> diffusers.DiffusionPipeline:
    return diffusers.CogView4Pipeline(
        **_cogview4_parts(), transformer=diffusers.CogView4Transformer2DModel(**_COGVIEW)
    )


def cogview4_control() -> diffusers.DiffusionPipeline:
    """The picture's latents beside the noise."""
    transformer = diffusers.CogView4Transformer2DModel(**_COGVIEW | {"in_channels": 8})
    return diffusers.CogView4ControlPipeline(**_cogview4_parts(), transformer=transformer)


def _cogview4_parts() -> dict[str, Any]:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        base_shift=0.25,
        max_shift=0.75,
        base_image_seq_len=256,
        use_dynamic_shifting=True,
        time_shift_type="linear",
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": encoders.glm(),
        "vae": image_autoencoder(),
        "scheduler": scheduler,
    }


def lumina() -> diffusers.DiffusionPipeline:
    transformer = diffusers.LuminaNextDiT2DModel(
        sample_size=8,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=encoders.TEXT_WIDTH,
    )
    return diffusers.LuminaPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=encoders.gemma2(),
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def lumina2() -> diffusers.DiffusionPipeline:
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=32,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),
        cap_feat_dim=encoders.TEXT_WIDTH,
    )
    return diffusers.Lumina2Pipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=encoders.gemma2(),
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
    )


def _prx_parts(*, in_channels: int) -> dict[str, Any]:
    transformer = diffusers.PRXTransformer2DModel(
        in_channels=in_channels,
        context_in_dim=encoders.TEXT_WIDTH,
        hidden_size=32,
        mlp_ratio=2.0,
        num_heads=2,
        depth=2,
        axes_dim=[8, 8],
    )
    return {
        "tokenizer": ByT5Tokenizer(model_max_length=64),
        "text_encoder": encoders.t5(),  # in place of T5Gemma's, whose config diffusers wraps as it loads
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def hidream() -> diffusers.DiffusionPipeline:
    """Four encoders; its transformer takes Llama's hidden states, layers first."""
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=8,
        in_channels=4,
        out_channels=4,
        **ONE_OF_EACH,
        caption_channels=[encoders.TEXT_WIDTH, encoders.TEXT_WIDTH],
        text_emb_dim=encoders.TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
        max_resolution=(16, 16),
        llama_layers=[0, 1],
    )
    half = encoders.TEXT_WIDTH // 2  # both CLIPs' pooled outputs side by side
    return diffusers.HiDreamImagePipeline(
        tokenizer=encoders.clip_tokenizer(),
        text_encoder=encoders.projected_clip(half),
        tokenizer_2=encoders.clip_tokenizer(),
        text_encoder_2=encoders.projected_clip(half),
        tokenizer_3=ByT5Tokenizer(),
        text_encoder_3=encoders.t5(),
        tokenizer_4=ByT5Tokenizer(),
        text_encoder_4=encoders.causal_llama(),
        vae=image_autoencoder(levels=1),  # it renders 128 x 128 latents, whatever the size
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


TINIES: Tinies = {
    "pixart_alpha": of("PixArtAlphaPipeline", _pixart_parts, IMAGE | UNBINNED),
    "pixart_sigma": of("PixArtSigmaPipeline", _pixart_parts, IMAGE | UNBINNED),
    "aura_flow": (aura_flow, IMAGE, ()),
    "cogview3": (cogview3, IMAGE, ()),
    "cogview4": (cogview4, IMAGE, ()),
    "lumina2": (lumina2, IMAGE, ()),
    "prx": (
        lambda: diffusers.PRXPipeline(**_prx_parts(in_channels=4), vae=image_autoencoder()),
        IMAGE | UNBINNED,
        (),
    ),
    "hidream": (hidream, LARGEST | {"max_sequence_length": 64}, ()),
    "pixart_sigma_pag": (
        lambda: diffusers.PixArtSigmaPAGPipeline(**_pixart_parts(), pag_applied_layers="blocks.1"),
        IMAGE | UNBINNED,
        (),
    ),
    "cogview4_control": (cogview4_control, IMAGE, ("control_image",)),
    # Without an autoencoder: it denoises pixels.
    "prx_pixel": (
        lambda: diffusers.PRXPixelPipeline(**_prx_parts(in_channels=3), prompt_max_tokens=64),
        IMAGE | UNBINNED,
        (),
    ),
    "lumina": (lumina, IMAGE, ()),
}
