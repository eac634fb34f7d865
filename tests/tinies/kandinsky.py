"""Tiny Kandinsky pipelines: 5 and 6, with sound and larger; 2.1 and 2.2, whose prior draws first; and 3."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from diffusers.pipelines.kandinsky6.pipeline_kandinsky6_ti2va import _PROMPT_TEMPLATE, _QWEN_CROP_START
from transformers import ByT5Tokenizer

from tests.tinies import encoders
from tests.tinies.encoders import TEXT_WIDTH, clip, clip_tokenizer, qwen, template_tokenizer
from tests.tinies.table import MASKED, ONE_LAYER, REDRAWN, STEPS, Tinies, of

CHANNELS = 4  # of the latents


def kandinsky() -> diffusers.DiffusionPipeline:
    return diffusers.Kandinsky5T2VPipeline(**_parts(), transformer=_transformer(visual_cond=False))


def kandinsky_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.Kandinsky5I2VPipeline(**_parts(), transformer=_transformer(visual_cond=True))


def kandinsky_6() -> diffusers.DiffusionPipeline:
    transformer = diffusers.Kandinsky6Transformer3DModel(
        **_sizes(),
        visual_cond=True,
        in_audio_dim=CHANNELS,
        out_audio_dim=CHANNELS,
        visual_token_type_num_embeddings=2,
    )
    audio_vae = diffusers.MMAudioVAE(
        mel_bins=8,
        latent_channels=CHANNELS,
        hidden_channels=8,
        channel_multipliers=(1, 2),
        layers_per_block=1,
        sample_rate=640,  # so that a clip of 0.2 s has a few latents of sound
        n_fft=16,
        hop_length=4,
    )
    vocoder = diffusers.MMAudioVocoder(
        num_mels=8,
        upsample_initial_channel=8,
        upsample_rates=(2, 2),
        upsample_kernel_sizes=(4, 4),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
    )
    parts = _parts() | {"tokenizer": template_tokenizer(_PROMPT_TEMPLATE, _QWEN_CROP_START)}
    parts["text_encoder"].resize_token_embeddings(len(parts["tokenizer"]))
    return diffusers.Kandinsky6TI2VAPipeline(
        **parts, transformer=transformer, audio_vae=audio_vae, vocoder=vocoder
    )


def _parts() -> dict[str, Any]:
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": qwen(),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_2": clip(),
        "vae": encoders.hunyuan_autoencoder(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def _transformer(*, visual_cond: bool) -> diffusers.Kandinsky5Transformer3DModel:
    return diffusers.Kandinsky5Transformer3DModel(**_sizes(), visual_cond=visual_cond)


def _sizes() -> dict[str, Any]:
    return {
        "in_visual_dim": CHANNELS,
        "in_text_dim": TEXT_WIDTH,
        "in_text_dim2": TEXT_WIDTH,
        "time_dim": 32,
        "out_visual_dim": CHANNELS,
        "patch_size": (1, 2, 2),
        "model_dim": 48,
        "ff_dim": 64,
        "num_text_blocks": 1,
        "num_visual_blocks": 1,
        "axes_dims": (8, 8, 8),
    }


_SIZE = STEPS | {"height": 64, "width": 64}
_PRIOR = _SIZE | {"prior_num_inference_steps": 2}


def _second(in_channels: int = 4) -> dict[str, Any]:
    """A prior draws the picture's CLIP embedding from the text, and a UNet the picture from that."""
    return _prior() | {
        "unet": _decoder(in_channels, addition_embed_type="image", encoder_hid_dim_type="image_proj")
    }


def _first(in_channels: int = 4) -> dict[str, Any]:
    """The UNet reads the text too."""
    encoder = MCLIPConfig(
        **encoders.READER,
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


def kandinsky_6_sr() -> diffusers.DiffusionPipeline:
    """Return one whose tiles are of 8 x 8 tokens, the fewest that its attention takes."""
    transformer = diffusers.Kandinsky6SRTransformer3DModel(
        in_visual_dim=CHANNELS,
        out_visual_dim=CHANNELS,
        time_dim=32,
        model_dim=32,
        ff_dim=64,
        num_visual_blocks=1,
        axes_dims=(8, 12, 12),
        tile_sizes=((32, 32),),
    )
    vae = diffusers.Kandinsky6SRVAE(
        latent_channels=CHANNELS,
        encoder_block_out_channels=(32, 32, 32),  # its norms have 32 groups
        decoder_block_out_channels=(32, 32, 32),
        layers_per_block=1,
    )
    return diffusers.Kandinsky6SRPipeline(
        transformer=transformer, vae=vae, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    )


TINIES: Tinies = {
    "kandinsky21": of("KandinskyCombinedPipeline", _first, _PRIOR),
    "kandinsky21_img2img": of(
        "KandinskyImg2ImgCombinedPipeline", _first, _PRIOR | {"strength": 0.5}, "image"
    ),
    "kandinsky21_inpaint": of("KandinskyInpaintCombinedPipeline", lambda: _first(9), _PRIOR, *MASKED),
    "kandinsky22": of("KandinskyV22CombinedPipeline", _second, _PRIOR),
    "kandinsky22_img2img": of(
        "KandinskyV22Img2ImgCombinedPipeline", _second, _PRIOR | {"strength": 0.5}, "image"
    ),
    "kandinsky22_inpaint": of("KandinskyV22InpaintCombinedPipeline", lambda: _second(9), _PRIOR, *MASKED),
    "kandinsky3": of("Kandinsky3Pipeline", _third, _SIZE),
    "kandinsky3_img2img": of("Kandinsky3Img2ImgPipeline", _third, REDRAWN, "image"),
}
