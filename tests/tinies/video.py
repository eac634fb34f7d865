"""Tiny video pipelines: LTX, AnimateDiff and its kin, PIA, ModelScope, Stable Video Diffusion."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel

from tests.tinies import encoders
from tests.tinies.image import NOISE, UNET_CHANNELS, image_autoencoder, unet, unet_xl
from tests.tinies.table import IMAGE, STEPS, TWO_LAYERS, Tinies, of


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
    return encoders.byte_parts(encoders.t5(), vae, transformer, ltx_scheduler())


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


def animatediff_xl() -> diffusers.DiffusionPipeline:
    return diffusers.AnimateDiffSDXLPipeline(
        **_parts(),
        tokenizer_2=encoders.clip_tokenizer(),
        text_encoder_2=encoders.projected_clip(encoders.TEXT_WIDTH),
        unet=unet_xl(),
        motion_adapter=adapter(),
    )


def pia() -> diffusers.DiffusionPipeline:
    """The picture's latents and a mask beside the noise, where the motion adapter has a layer for them."""
    motion = adapter(use_motion_mid_block=False, conv_in_channels=9)
    return diffusers.PIAPipeline(**_parts(), unet=unet(), motion_adapter=motion)


def adapter(**settings: Any) -> diffusers.MotionAdapter:
    return diffusers.MotionAdapter(
        block_out_channels=UNET_CHANNELS,
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=32,
        **settings,
    )


def _modelscope() -> dict[str, Any]:
    denoiser = diffusers.UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=encoders.TEXT_WIDTH,
        attention_head_dim=8,
    )
    return _parts() | {"unet": denoiser}


def _parts() -> dict[str, Any]:
    return {
        "tokenizer": encoders.clip_tokenizer(),
        "text_encoder": encoders.clip(),
        "vae": image_autoencoder(),
        "scheduler": diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
    }


_FRAMES_4 = IMAGE | {"num_frames": 4}


TINIES: Tinies = {
    "animatediff_v2v": of(
        "AnimateDiffVideoToVideoPipeline",
        lambda: _parts() | {"unet": unet(), "motion_adapter": adapter()},
        IMAGE | {"strength": 0.8},
        video=4,
    ),
    "animatediff_xl": (animatediff_xl, _FRAMES_4, ()),
    "pia": (pia, _FRAMES_4, ("image",)),
    "modelscope": of("TextToVideoSDPipeline", _modelscope, _FRAMES_4),
    "modelscope_v2v": of("VideoToVideoSDPipeline", _modelscope, STEPS | {"strength": 0.8}, video=4),
}
