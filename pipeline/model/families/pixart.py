"""PixArt-Sigma."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

PIXART = Family(
    prefix="PixArt",
    presets=(
        # The call's defaults; the dtype of its docstring.
        Preset(
            name="pixart-sigma-xl-1024",
            models=("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",),
            inputs=("text",),
            pipelines=("PixArtSigmaPipeline",),
            match=dict(transformer=dict(num_layers=28, sample_size=128)),
            arguments=dict(height=1024, width=1024, num_inference_steps=20, guidance_scale=4.5),
            dtype="fp16",
            parameters=dict(transformer=611, text_encoder=4762, vae=84),
            held=dict(transformer=37, text_encoder=132),
            token=(1, 16, 16),
            width=1152,
            joined=True,
            licence="openrail++",
        ),
    ),
)
