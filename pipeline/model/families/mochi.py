"""Mochi 1, from text."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

MOCHI = Family(
    prefix="Mochi",
    default_size=(480, 848),
    fps=30,
    joins_prompts=True,
    # It renders with inverted sigmas, which no other scheduler has.
    schedulers=("FlowMatchEulerDiscreteScheduler",),
    presets=(
        # Size: the pipeline's own. Steps and guidance: the docstring of diffusers' MochiPipeline; frames and
        # rate: its documentation.
        Preset(
            name="mochi-1-preview",
            models=("genmo/mochi-1-preview",),
            inputs=("text",),
            pipelines=("MochiPipeline",),
            match=dict(transformer=dict(num_layers=48, in_channels=12)),
            arguments=dict(height=480, width=848, num_frames=85, num_inference_steps=28, guidance_scale=3.5),
            fps=30,
            parameters=dict(transformer=10028, text_encoder=4762, vae=460),
            held=dict(transformer=306, text_encoder=132),
            token=(6, 16, 16),
            width=3072,
            joined=True,
            licence="apache-2.0",
            note="Made for 6k + 1 frames, up to 163.",
        ),
    ),
)
