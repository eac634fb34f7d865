"""Tiny Kandinsky pipelines: 2.1 and 2.2, whose prior draws an embedding of the picture first, and 3."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from transformers import ByT5Tokenizer

from tests.tinies import encoders
from tests.tinies.table import ONE_LAYER, REDRAWN, STEPS, Tinies, of

_SIZE = STEPS | {"height": 64, "width": 64}
_PRIOR = _SIZE | {"prior_num_inference_steps": 2}
_INPAINT = ("image", "mask_image")


def _second(in_channels: int = 4) -> dict[str, Any]:
    """A prior draws the picture's CLIP embedding from the text, and a UNet the picture from that."""
    return _prior() | {
        "unet": _decoder(in_channels, addition_embed_type="image", encoder_hid_dim_type="image_proj")
    }


def _first(in_channels: int = 4) -> dict[str, Any]:
    """The UNet reads the text too."""
    encoder = MCLIPConfig(
        vocab_size=384,
        hidden_size=encoders.TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        transformerDimSize=encoders.TEXT_WIDTH,
        imageDimSize=encoders.TEXT_WIDTH,
    )
    return _prior() | {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": MultilingualCLIP(encoder),
        "unet": _decoder(
            in_channels, addition_embed_type="text_image", encoder_hid_dim_type="text_image_proj"
        ),
    }


def _third() -> dict[str, Any]:
    denoiser = diffusers.Kandinsky3UNet(
        time_embedding_dim=32,
        groups=2,
        attention_head_dim=16,
        layers_per_block=2,
        block_out_channels=(32, 64),
        cross_attention_dim=encoders.TEXT_WIDTH,
        encoder_hid_dim=encoders.TEXT_WIDTH,
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": encoders.t5(),
        "unet": denoiser,
        "movq": _movq(),
        "scheduler": diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=True),
    }


def _prior() -> dict[str, Any]:
    prior = diffusers.PriorTransformer(
        **ONE_LAYER,
        embedding_dim=encoders.TEXT_WIDTH,
        num_embeddings=77,
        additional_embeddings=4,
    )
    return {
        "scheduler": diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=True),
        "movq": _movq(),
        "prior_prior": prior,
        "prior_image_encoder": encoders.projected_vision(image_size=32, patch_size=8),
        "prior_text_encoder": encoders.projected_clip(encoders.TEXT_WIDTH),
        "prior_tokenizer": encoders.clip_tokenizer(),
        "prior_scheduler": diffusers.UnCLIPScheduler(
            prediction_type="sample", variance_type="fixed_small_log", clip_sample=True, clip_sample_range=5.0
        ),
        "prior_image_processor": encoders.image_processor(image_size=32),
    }


def _decoder(in_channels: int, **settings: Any) -> diffusers.UNet2DConditionModel:
    return cross_attending_unet(
        in_channels=in_channels, out_channels=8, encoder_hid_dim=encoders.TEXT_WIDTH, **settings
    )


def cross_attending_unet(**settings: Any) -> diffusers.UNet2DConditionModel:
    """Return one with plain cross-attention between its convolutions."""
    return diffusers.UNet2DConditionModel(
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=encoders.TEXT_WIDTH,
        attention_head_dim=16,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=4,
        **settings,
    )


def _movq() -> diffusers.VQModel:
    return diffusers.VQModel(
        block_out_channels=(32, 32, 32, 32),  # its norms have 32 groups
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        vq_embed_dim=4,
        norm_type="spatial",
        num_vq_embeddings=12,
    )


TINIES: Tinies = {
    "kandinsky21": of("KandinskyCombinedPipeline", _first, _PRIOR),
    "kandinsky21_img2img": of(
        "KandinskyImg2ImgCombinedPipeline", _first, _PRIOR | {"strength": 0.5}, "image"
    ),
    "kandinsky21_inpaint": of("KandinskyInpaintCombinedPipeline", lambda: _first(9), _PRIOR, *_INPAINT),
    "kandinsky22": of("KandinskyV22CombinedPipeline", _second, _PRIOR),
    "kandinsky22_img2img": of(
        "KandinskyV22Img2ImgCombinedPipeline", _second, _PRIOR | {"strength": 0.5}, "image"
    ),
    "kandinsky22_inpaint": of("KandinskyV22InpaintCombinedPipeline", lambda: _second(9), _PRIOR, *_INPAINT),
    "kandinsky3": of("Kandinsky3Pipeline", _third, _SIZE),
    "kandinsky3_img2img": of("Kandinsky3Img2ImgPipeline", _third, REDRAWN, "image"),
}
