"""AuraFlow."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

AURA_FLOW = Family(
    prefix="AuraFlow",
    presets=(
        # The call's defaults; the dtype of its docstring.
        Preset(
            name="auraflow",
            models=("fal/AuraFlow",),
            inputs=("text",),
            pipelines=("AuraFlowPipeline",),
            match=dict(transformer=dict(num_mmdit_layers=4, num_single_dit_layers=32)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=3.5),
            dtype="fp16",
            parameters=dict(transformer=6859, text_encoder=1222, vae=84),
            held=dict(transformer=404, text_encoder=66),
            token=(1, 16, 16),
            width=3072,
            joined=True,
            licence="apache-2.0",
            scheduler="FlowMatchEuler",
        ),
    ),
)
