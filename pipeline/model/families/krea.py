"""Krea 2."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

KREA2 = Family(
    prefix="Krea2",
    presets=(
        # Diffusers' documentation of Krea 2. Its guidance is one less than the usual: 0 is off.
        Preset(
            name="krea-2-turbo",
            models=("krea/Krea-2-Turbo",),
            inputs=("text",),
            pipelines=("Krea2Pipeline",),
            match=dict(
                transformer=dict(num_layers=28, num_attention_heads=48), index=dict(is_distilled=True)
            ),
            arguments=dict(height=1024, width=1024, num_inference_steps=8, guidance_scale=0.0),
            parameters=dict(transformer=12820, text_encoder=4438, vae=127),
            held=dict(transformer=754, text_encoder=389),
            token=(1, 16, 16),
            width=6144,
            licence="krea-2-community",
            scheduler="FlowMatchEuler",
            note="Distilled: guidance 0.",
        ),
        Preset(
            name="krea-2",
            models=(),
            inputs=("text",),
            pipelines=("Krea2Pipeline",),
            match=dict(transformer=dict(num_layers=28, num_attention_heads=48)),
            arguments=dict(height=1024, width=1024, num_inference_steps=28, guidance_scale=4.5),
            parameters=dict(transformer=12820, text_encoder=4438, vae=127),
            held=dict(transformer=754, text_encoder=389),
            token=(1, 16, 16),
            width=6144,
            licence="krea-2-community",
            scheduler="FlowMatchEuler",
            note="Guidance is one less than in other models: 0 is off.",
        ),
    ),
)
