"""Chroma."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family, Sibling
from framefleet.pipeline.model.families.preset import Preset

CHROMA = Family(
    prefix="Chroma",
    default_size=128,
    siblings=(
        Sibling(
            task="image_to_image",
            source="ChromaPipeline",
            target="ChromaImg2ImgPipeline",
            noising="scale_noise",
        ),
    ),
    presets=(
        # The call's defaults.
        Preset(
            name="chroma",
            models=("lodestones/Chroma1-HD",),
            inputs=("text", "image"),
            pipelines=("ChromaPipeline", "ChromaImg2ImgPipeline"),
            match=dict(transformer=dict(num_layers=19, num_single_layers=38)),
            arguments=dict(height=1024, width=1024, num_inference_steps=35, guidance_scale=5.0),
            parameters=dict(transformer=8900, text_encoder=4762, vae=84),
            held=dict(transformer=256, text_encoder=132),
            token=(1, 16, 16),
            width=3072,
            licence="apache-2.0",
            scheduler="FlowMatchEuler",
        ),
    ),
)
