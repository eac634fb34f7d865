"""Tiny video pipelines of the other families: LTX, HunyuanVideo, AnimateDiff, Stable Video Diffusion."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from transformers import ByT5Tokenizer

from tests.tinies import encoders
from tests.tinies.image import image_autoencoder, unet
from tests.tinies.stable_video import adapter


def ltx() -> diffusers.DiffusionPipeline:
    return diffusers.LTXPipeline(**_ltx_parts())


def ltx_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.LTXImageToVideoPipeline(**_ltx_parts())


def ltx_condition() -> diffusers.DiffusionPipeline:
    """LTX-Video 0.9.7's kind, whose noise schedule is not shifted by size."""
    return diffusers.LTXConditionPipeline(
        **_ltx_parts() | {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}
    )


def ltx_long() -> diffusers.DiffusionPipeline:
    """Window by window, each of which may have a prompt of its own."""
    return diffusers.LTXI2VLongMultiPromptPipeline(
        **_ltx_parts() | {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}
    )


def ltx_upsampler() -> diffusers.DiffusionPipeline:
    """No noise and no steps: a clip in, one of twice its size out."""
    network = LTXLatentUpsamplerModel(in_channels=8, mid_channels=32, num_blocks_per_stage=1)
    return diffusers.LTXLatentUpsamplePipeline(vae=_ltx_parts()["vae"], latent_upsampler=network)


def _ltx_parts() -> dict[str, Any]:
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=encoders.TEXT_WIDTH,
    )
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": encoders.t5(),
        "vae": vae,
        "transformer": transformer,
        "scheduler": scheduler,
    }


def hunyuan() -> diffusers.DiffusionPipeline:
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=encoders.TEXT_WIDTH,
        pooled_projection_dim=encoders.TEXT_WIDTH,
        rope_axes_dim=(4, 6, 6),
    )
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    )
    return diffusers.HunyuanVideoPipeline(
        tokenizer=encoders.llama_tokenizer(),
        text_encoder=encoders.llama(),
        tokenizer_2=encoders.clip_tokenizer(),
        text_encoder_2=encoders.clip(),
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
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
