"""Tiny pipelines of transformers that cross-attend to text or read it in one stream, one encoder each."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    CogView4ControlPipeline,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPAGPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PRXPipeline,
    PRXPixelPipeline,
    PRXTransformer2DModel,
)
from transformers import ByT5Tokenizer

from tests.random_weights import byte_text_encoder
from tests.tinies.encoders import (
    TEXT_WIDTH,
    causal_llama,
    clip_tokenizer,
    gemma2,
    glm,
    projected_clip,
    t5,
)
from tests.tinies.image import image_autoencoder


def pixart_alpha() -> DiffusionPipeline:
    return PixArtAlphaPipeline(**_pixart_parts())


def pixart_sigma() -> DiffusionPipeline:
    return PixArtSigmaPipeline(**_pixart_parts())


def pixart_sigma_pag() -> DiffusionPipeline:
    return PixArtSigmaPAGPipeline(**_pixart_parts(), pag_applied_layers="blocks.1")


def _pixart_parts() -> dict[str, Any]:
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        cross_attention_dim=32,
        caption_channels=TEXT_WIDTH,
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": t5(),
        "vae": image_autoencoder(),
        "transformer": transformer,
        "scheduler": DPMSolverMultistepScheduler(),
    }


def aura_flow() -> DiffusionPipeline:
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    return AuraFlowPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=byte_text_encoder(TEXT_WIDTH),
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


_COGVIEW: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "text_embed_dim": TEXT_WIDTH,
    "time_embed_dim": 32,
    "condition_dim": 8,
    "pos_embed_max_size": 16,
    "sample_size": 8,
}


def cogview3() -> DiffusionPipeline:
    transformer = CogView3PlusTransformer2DModel(**_COGVIEW)
    return CogView3PlusPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=t5(),
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=CogVideoXDDIMScheduler(),
    )


def cogview4() -> DiffusionPipeline:
    return CogView4Pipeline(**_cogview4_parts(), transformer=CogView4Transformer2DModel(**_COGVIEW))


def cogview4_control() -> DiffusionPipeline:
    """The picture's latents beside the noise."""
    transformer = CogView4Transformer2DModel(**_COGVIEW | {"in_channels": 8})
    return CogView4ControlPipeline(**_cogview4_parts(), transformer=transformer)


def _cogview4_parts() -> dict[str, Any]:
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_shift=0.25,
        max_shift=0.75,
        base_image_seq_len=256,
        use_dynamic_shifting=True,
        time_shift_type="linear",
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": glm(),
        "vae": image_autoencoder(),
        "scheduler": scheduler,
    }


def lumina() -> DiffusionPipeline:
    transformer = LuminaNextDiT2DModel(
        sample_size=8,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=TEXT_WIDTH,
    )
    return LuminaPipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=gemma2(),
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def lumina2() -> DiffusionPipeline:
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=32,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),
        cap_feat_dim=TEXT_WIDTH,
    )
    return Lumina2Pipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=gemma2(),
        vae=image_autoencoder(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
    )


def prx() -> DiffusionPipeline:
    return PRXPipeline(**_prx_parts(in_channels=4), vae=image_autoencoder())


def prx_pixel() -> DiffusionPipeline:
    """Without an autoencoder: it denoises pixels."""
    return PRXPixelPipeline(**_prx_parts(in_channels=3), prompt_max_tokens=64)


def _prx_parts(*, in_channels: int) -> dict[str, Any]:
    transformer = PRXTransformer2DModel(
        in_channels=in_channels,
        context_in_dim=TEXT_WIDTH,
        hidden_size=32,
        mlp_ratio=2.0,
        num_heads=2,
        depth=2,
        axes_dim=[8, 8],
    )
    return {
        "tokenizer": ByT5Tokenizer(model_max_length=64),
        "text_encoder": t5(),  # in place of T5Gemma's, whose config diffusers wraps as it loads
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def hidream() -> DiffusionPipeline:
    """Four encoders; its transformer takes Llama's hidden states, layers first."""
    transformer = HiDreamImageTransformer2DModel(
        patch_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_channels=[TEXT_WIDTH, TEXT_WIDTH],
        text_emb_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
        max_resolution=(16, 16),
        llama_layers=[0, 1],
    )
    half = TEXT_WIDTH // 2  # both CLIPs' pooled outputs side by side
    return HiDreamImagePipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=projected_clip(half),
        tokenizer_2=clip_tokenizer(),
        text_encoder_2=projected_clip(half),
        tokenizer_3=ByT5Tokenizer(),
        text_encoder_3=t5(),
        tokenizer_4=ByT5Tokenizer(),
        text_encoder_4=causal_llama(),
        vae=image_autoencoder(levels=1),  # it renders 128 x 128 latents, whatever the size
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
