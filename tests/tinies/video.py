"""Tiny video pipelines of the other families: LTX, AnimateDiff, Stable Video Diffusion."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from transformers import ByT5Tokenizer

from tests.tinies import encoders
from tests.tinies.image import image_autoencoder, unet
from tests.tinies.stable_video import adapter
from tests.tinies.table import TWO_LAYERS


def ltx() -> diffusers.DiffusionPipeline:
    return diffusers.LTXPipeline(**ltx_parts())


def ltx_upsampler() -> diffusers.DiffusionPipeline:
    """No noise and no steps: a clip in, one of twice its size out."""
    network = LTXLatentUpsamplerModel(in_channels=8, mid_channels=32, num_blocks_per_stage=1)
    return diffusers.LTXLatentUpsamplePipeline(vae=ltx_parts()["vae"], latent_upsampler=network)


def ltx_parts() -> dict[str, Any]:
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        **TWO_LAYERS,
        cross_attention_dim=32,
        caption_channels=encoders.TEXT_WIDTH,
    )
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": encoders.t5(),
        "vae": vae,
        "transformer": transformer,
        "scheduler": ltx_scheduler(),
    }


def ltx_unshifted() -> dict[str, Any]:
    """Return those of LTX-Video 0.9.7's kind, whose noise schedule is not shifted by size."""
    return ltx_parts() | {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}


def ltx_scheduler() -> diffusers.FlowMatchEulerDiscreteScheduler:
    return diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )


def animatediff() -> diffusers.DiffusionPipeline:
    return diffusers.AnimateDiffPipeline(
        tokenizer=encoders.clip_tokenizer(),
        text_encoder=encoders.clip(),
        vae=image_autoencoder(),
        unet=unet(),
        motion_adapter=adapter(),
        # The one that AnimateDiff's documentation puts in place of the base model's.
        scheduler=diffusers.DDIMScheduler(
            beta_schedule="linear", timestep_spacing="linspace", steps_offset=1, clip_sample=False
        ),
    )


def svd() -> diffusers.DiffusionPipeline:
    denoiser = diffusers.UNetSpatioTemporalConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(32, 32),  # its norms have 32 groups
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        layers_per_block=1,
        num_attention_heads=(2, 2),
        cross_attention_dim=encoders.IMAGE_WIDTH,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        num_frames=4,
    )
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
    )
    # The noise schedule that Stable Video Diffusion ships.
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        interpolation_type="linear",
        prediction_type="v_prediction",
        sigma_max=700.0,
        sigma_min=0.002,
        steps_offset=1,
        timestep_spacing="leading",
        timestep_type="continuous",
        use_karras_sigmas=True,
    )
    return diffusers.StableVideoDiffusionPipeline(
        image_encoder=encoders.projected_vision(image_size=224, patch_size=32),  # the pipeline resizes to 224
        feature_extractor=encoders.image_processor(image_size=224),
        vae=vae,
        unet=denoiser,
        scheduler=scheduler,
    )
