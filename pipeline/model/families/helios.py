"""Helios, which renders chunk after chunk: from text, from an image, over a video."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

HELIOS = Family(
    prefix="Helios",
    # Chunks are decoded to 33 frames each, and together cut to 4k + 1: up to 129 that is 32k + 1. Longer
    # clips come out as long as asked, or up to four frames longer.
    frame_factor=8,
    fps=24,
    presets=(
        # Size, guidance, rate, precision: the docstring of diffusers' HeliosPipeline.
        Preset(
            name="helios-base",
            models=("BestWishYsh/Helios-Base",),
            inputs=("text", "image", "video"),
            pipelines=("HeliosPipeline",),
            match=dict(transformer=dict(num_layers=40, in_channels=16)),
            arguments=dict(height=384, width=640, num_frames=129, num_inference_steps=50, guidance_scale=5.0),
            fps=24,
            dtypes=dict(vae="fp32"),
            parameters=dict(transformer=14312, text_encoder=5681, vae=127),
            held=dict(transformer=608, text_encoder=1050),
            token=(4, 16, 16),
            width=5120,
            licence="see its card",
            note=(
                "Asked for 132 frames, as in diffusers' example, it renders 129. "
                "`HeliosPyramidPipeline` has steps of its own for each size."
            ),
        ),
    ),
)
