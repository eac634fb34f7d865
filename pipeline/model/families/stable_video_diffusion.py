"""Stable Video Diffusion, from an image."""

from __future__ import annotations

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

# `fps` of its call is what the motion is conditioned on, and its native rate.
_XT = Preset(
    name="svd-xt",
    models=("stabilityai/stable-video-diffusion-img2vid-xt",),
    inputs=("image",),
    pipelines=("StableVideoDiffusionPipeline",),
    match=dict(unet=dict(num_frames=25, cross_attention_dim=1024)),
    arguments=dict(height=576, width=1024, num_frames=25, num_inference_steps=25),
    fps=7,
    dtype="fp16",
    parameters=dict(unet=1525, image_encoder=632, vae=98),
    held=dict(unet=680),
    token=(1, 8, 8),
    width=320,
    joined=True,
    licence="stable-video-diffusion-community",
    scheduler="Euler",
    note=(
        "Guidance rises over the frames, from `min_guidance_scale` 1 to `max_guidance_scale` 3. "
        "No other scheduler than Euler."
    ),
)

STABLE_VIDEO_DIFFUSION = Family(
    prefix="StableVideoDiffusion",
    frame_factor=0,
    fps=7,
    presets=(
        _XT,
        replace(
            _XT,
            name="svd",
            models=("stabilityai/stable-video-diffusion-img2vid",),
            match=dict(unet=dict(num_frames=14, cross_attention_dim=1024)),
            arguments={**_XT.arguments, "num_frames": 14},
        ),
    ),
)
