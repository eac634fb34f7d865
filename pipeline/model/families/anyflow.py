"""AnyFlow, from text: Wan made to render in few steps."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

ANYFLOW = Family(
    prefix="AnyFlow",
    fps=16,
    sends=(),
    presets=(
        # Frames, steps and rate: the docstring of diffusers' AnyFlowPipeline; the rest: its signature.
        Preset(
            name="anyflow-wan2.1-t2v-14b",
            models=("nvidia/AnyFlow-Wan2.1-T2V-14B-Diffusers",),
            inputs=("text",),
            pipelines=("AnyFlowPipeline",),
            match=dict(transformer=dict(num_layers=40, in_channels=16)),
            arguments=dict(height=480, width=832, num_frames=33, num_inference_steps=4, guidance_scale=1.0),
            fps=16,
            parameters=dict(transformer=14316, text_encoder=5681, vae=127),
            held=dict(transformer=612, text_encoder=1050),
            token=(4, 16, 16),
            width=5120,
            licence="see its card",
        ),
    ),
)
