"""Lumina-Image 2."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

LUMINA2 = Family(
    prefix="Lumina2",
    presets=(
        # The call's defaults.
        Preset(
            name="lumina-image-2",
            models=("Alpha-VLLM/Lumina-Image-2.0",),
            inputs=("text",),
            pipelines=("Lumina2Pipeline",),
            match=dict(transformer=dict(num_layers=26, hidden_size=2304)),
            arguments=dict(height=1024, width=1024, num_inference_steps=30, guidance_scale=4.0),
            parameters=dict(transformer=2610, text_encoder=2614, vae=84),
            held=dict(transformer=97, text_encoder=590),
            token=(1, 16, 16),
            width=2304,
            licence="apache-2.0",
            scheduler="FlowMatchEuler",
        ),
    ),
)
