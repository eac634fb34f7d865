"""Tiny Kandinsky pipelines: 2.2, whose prior draws an embedding of the picture first, and 3."""

from __future__ import annotations

from diffusers import (
    DDPMScheduler,
    DiffusionPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    KandinskyV22CombinedPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from transformers import ByT5Tokenizer

from tests.tinies.encoders import (
    TEXT_WIDTH,
    clip_tokenizer,
    image_processor,
    projected_clip,
    projected_vision,
    t5,
)


def kandinsky3() -> DiffusionPipeline:
    denoiser = Kandinsky3UNet(
        time_embedding_dim=32,
        groups=2,
        attention_head_dim=16,
        layers_per_block=2,
        block_out_channels=(32, 64),
        cross_attention_dim=TEXT_WIDTH,
        encoder_hid_dim=TEXT_WIDTH,
    )
    return Kandinsky3Pipeline(
        tokenizer=ByT5Tokenizer(),
        text_encoder=t5(),
        unet=denoiser,
        movq=_movq(),
        scheduler=DDPMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=True),
    )


def kandinsky22() -> DiffusionPipeline:
    """A prior draws the picture's CLIP embedding from the text, and a UNet the picture from that."""
    denoiser = UNet2DConditionModel(
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(32, 64),
        layers_per_block=1,
        encoder_hid_dim=TEXT_WIDTH,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=16,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=4,
    )
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        embedding_dim=TEXT_WIDTH,
        num_embeddings=77,
        additional_embeddings=4,
    )
    return KandinskyV22CombinedPipeline(
        unet=denoiser,
        scheduler=DDPMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=True),
        movq=_movq(),
        prior_prior=prior,
        prior_image_encoder=projected_vision(image_size=32, patch_size=8),
        prior_text_encoder=projected_clip(TEXT_WIDTH),
        prior_tokenizer=clip_tokenizer(),
        prior_scheduler=UnCLIPScheduler(
            prediction_type="sample", variance_type="fixed_small_log", clip_sample=True, clip_sample_range=5.0
        ),
        prior_image_processor=image_processor(image_size=32),
    )


def _movq() -> VQModel:
    return VQModel(
        block_out_channels=(32, 32, 32, 32),  # its norms have 32 groups
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        vq_embed_dim=4,
        norm_type="spatial",
        num_vq_embeddings=12,
    )
