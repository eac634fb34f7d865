"""ERNIE-Image."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

ERNIE_IMAGE = Family(
    prefix="ErnieImage",
    presets=(
        # Values of the call: diffusers' documentation of ERNIE-Image. Configs: the hub's, as the port
        # ernie-image-mlx quotes them; of the text encoder the language half is counted. Licence: its pages.
        Preset(
            name="ernie-image",
            models=("baidu/ERNIE-Image",),
            inputs=("text",),
            pipelines=("ErnieImagePipeline",),
            match=dict(transformer=dict(hidden_size=4096, num_layers=36)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=4.0),
            parameters=dict(transformer=8033, text_encoder=3429, vae=84),
            held=dict(transformer=299, text_encoder=403),
            token=(1, 16, 16),
            width=4096,
            licence="apache-2.0",
            note="Turbo takes 8 steps and guidance 1: give them. Its prompt enhancer, 3.4 billion more, "
            "is on unless `use_pe` is false.",
        ),
    ),
)
