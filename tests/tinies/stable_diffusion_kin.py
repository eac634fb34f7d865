"""Tiny pipelines around Stable Diffusion: what came before it, variations, panoramas, edits, upscalers."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, clip, clip_tokenizer, image_processor, projected_vision
from tests.tinies.image import NOISE, image_autoencoder, unet
from tests.tinies.image_edits import sd_parts
from tests.tinies.table import IMAGE, STEPS, Tinies, of


def sd_variation() -> diffusers.DiffusionPipeline:
    """A picture's CLIP embedding stands where a text's would."""
    return diffusers.StableDiffusionImageVariationPipeline(
        image_encoder=projected_vision(image_size=32, patch_size=8),
        vae=image_autoencoder(),
        unet=unet(),
        scheduler=diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=image_processor(image_size=32),
        requires_safety_checker=False,
    )


def sd_upscale() -> diffusers.DiffusionPipeline:
    """Latents beside the small picture, with noise on it: four pixels to each of its."""
    return diffusers.StableDiffusionUpscalePipeline(
        **_text(),
        vae=image_autoencoder(levels=3),
        unet=unet(in_channels=7, out_channels=4, num_class_embeds=1000),
        low_res_scheduler=diffusers.DDPMScheduler(),
        scheduler=diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
    )


def sd_latent_upscale() -> diffusers.DiffusionPipeline:
    denoiser = diffusers.UNet2DConditionModel(
        in_channels=8,
        out_channels=5,
        act_fn="gelu",
        block_out_channels=(32, 64, 64),
        down_block_types=("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"),
        up_block_types=("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"),
        mid_block_type=None,
        layers_per_block=1,
        attention_head_dim=8,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=None,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        time_cond_proj_dim=128 + TEXT_WIDTH,  # how noisy the picture is, and the pooled text
        conv_in_kernel=1,
        conv_out_kernel=1,
    )
    return diffusers.StableDiffusionLatentUpscalePipeline(
        **_text(), vae=image_autoencoder(), unet=denoiser, scheduler=diffusers.EulerDiscreteScheduler(**NOISE)
    )


def ldm() -> diffusers.DiffusionPipeline:
    """What came before Stable Diffusion: a BERT reads the text."""
    encoder = LDMBertConfig(
        vocab_size=384,
        encoder_layers=2,
        encoder_ffn_dim=64,
        encoder_attention_heads=2,
        head_dim=16,
        d_model=TEXT_WIDTH,
    )
    return diffusers.LDMTextToImagePipeline(
        tokenizer=ByT5Tokenizer(),
        bert=LDMBertModel(encoder),
        vqvae=image_autoencoder(),
        unet=unet(),
        scheduler=diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
    )


def _text() -> dict[str, Any]:
    return {"tokenizer": clip_tokenizer(), "text_encoder": clip()}


TINIES: Tinies = {
    "ldm": (ldm, IMAGE, ()),
    "sd_variation": (sd_variation, IMAGE, ("image",)),
    # Two views of 512.
    "sd_panorama": of("StableDiffusionPanoramaPipeline", sd_parts, IMAGE | {"width": 576}),
    # It blurs nine latents at once.
    "sd_sag": of("StableDiffusionSAGPipeline", sd_parts, STEPS | {"height": 64, "width": 64}),
    "sd_semantic": of(
        "SemanticStableDiffusionPipeline",
        sd_parts,
        IMAGE | {"editing_prompt": "smiling", "edit_warmup_steps": 0},
    ),
    "sd_upscale": (sd_upscale, STEPS, ("image",)),
    "sd_latent_upscale": (sd_latent_upscale, STEPS, ("image",)),
}
