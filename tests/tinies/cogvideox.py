"""Tiny CogVideoX pipelines: 2B, 5B and 1.5; from text, from a picture, from a clip."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, t5

CHANNELS = 4  # of the latents; the picture's stand beside them


def cogvideox() -> diffusers.DiffusionPipeline:
    return diffusers.CogVideoXPipeline(**_parts(), transformer=_transformer())


def cogvideox_2b() -> diffusers.DiffusionPipeline:
    """Fixed position embeddings instead of rotary ones, and a noise schedule of its own."""
    parts = _parts(snr_shift_scale=3.0)
    return diffusers.CogVideoXPipeline(
        **parts, transformer=_transformer(use_rotary_positional_embeddings=False)
    )


def cogvideox_1_5() -> diffusers.DiffusionPipeline:
    return diffusers.CogVideoXPipeline(**_parts(), transformer=_transformer(**_PATCHES_OF_1_5))


def cogvideox_i2v() -> diffusers.DiffusionPipeline:
    """CogVideoX-5B's kind: learned position embeddings, which hold for one size only."""
    transformer = _transformer(
        in_channels=2 * CHANNELS, use_learned_positional_embeddings=True, sample_width=4, sample_height=4
    )
    return diffusers.CogVideoXImageToVideoPipeline(**_parts(), transformer=transformer)


def cogvideox_1_5_i2v() -> diffusers.DiffusionPipeline:
    transformer = _transformer(in_channels=2 * CHANNELS, ofs_embed_dim=16, **_PATCHES_OF_1_5)
    return diffusers.CogVideoXImageToVideoPipeline(**_parts(), transformer=transformer)


def cogvideox_v2v() -> diffusers.DiffusionPipeline:
    return diffusers.CogVideoXVideoToVideoPipeline(**_parts(), transformer=_transformer())


def cogvideox_fun_control() -> diffusers.DiffusionPipeline:
    """A clip's latents beside the noise."""
    return diffusers.CogVideoXFunControlPipeline(
        **_parts(), transformer=_transformer(in_channels=2 * CHANNELS)
    )


_PATCHES_OF_1_5 = {"patch_size_t": 2, "patch_bias": False}  # two latent frames to a token


def _parts(*, snr_shift_scale: float = 1.0) -> dict[str, Any]:
    vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
    )
    # The noise schedule that CogVideoX-5b ships.
    scheduler = diffusers.CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=snr_shift_scale,
        timestep_spacing="trailing",
    )
    return {"tokenizer": ByT5Tokenizer(), "text_encoder": t5(), "vae": vae, "scheduler": scheduler}


def _transformer(**settings: Any) -> diffusers.CogVideoXTransformer3DModel:
    given: dict[str, Any] = {
        "in_channels": CHANNELS,
        "sample_width": 8,
        "sample_height": 8,
        "use_rotary_positional_embeddings": True,
    }
    return diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        out_channels=CHANNELS,
        time_embed_dim=16,
        text_embed_dim=TEXT_WIDTH,
        num_layers=2,
        sample_frames=9,
        **{**given, **settings},
    )
