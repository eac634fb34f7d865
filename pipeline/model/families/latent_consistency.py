"""Latent consistency models over Stable Diffusion 1.5."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

LATENT_CONSISTENCY = Family(
    prefix="LatentConsistencyModel",
    default_size="config",
    reads_guidance_once=True,
    presets=(
        # The docstring of diffusers' LatentConsistencyModelPipeline.
        Preset(
            name="lcm-dreamshaper-v7",
            models=("SimianLuo/LCM_Dreamshaper_v7",),
            inputs=("text",),
            pipelines=("LatentConsistencyModelPipeline",),
            match=dict(unet=dict(cross_attention_dim=768, time_cond_proj_dim=256)),
            arguments=dict(height=768, width=768, num_inference_steps=4, guidance_scale=8.0),
            dtype="fp16",
            parameters=dict(unet=860, text_encoder=123, safety_checker=304, vae=84),
            held=dict(unet=357),
            token=(1, 8, 8),
            width=320,
            licence="mit",
            scheduler="LCM",
            note="Guidance is an input of its network.",
        ),
    ),
)
