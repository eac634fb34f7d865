"""HiDream-I1."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

HIDREAM = Family(
    prefix="HiDream",
    presets=(
        # Values of the call: the docstring of diffusers' HiDreamImagePipeline; of Dev and Fast: ComfyUI's
        # documentation. Config: the script that converted it. Licence: github.com/HiDream-ai/HiDream-I1.
        Preset(
            name="hidream-i1",
            models=("HiDream-ai/HiDream-I1-Full",),
            inputs=("text",),
            pipelines=("HiDreamImagePipeline",),
            match=dict(transformer=dict(num_layers=16, num_single_layers=32, num_attention_heads=20)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=5.0),
            parameters=dict(
                transformer=17106,
                text_encoder=124,
                text_encoder_2=695,
                text_encoder_3=4762,
                text_encoder_4=8030,
                vae=84,
            ),
            held=dict(transformer=457, text_encoder_3=132, text_encoder_4=525),
            token=(1, 16, 16),
            width=2560,
            licence="mit; the Llama 3.1 in it: its own",
            note="Dev takes 28 steps, Fast 16, both guidance 0: give them. Its folder lacks Llama 3.1 8B.",
        ),
    ),
)
