"""HunyuanImage 2.1."""

from __future__ import annotations

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

# Values of the calls: diffusers' documentation of HunyuanImage 2.1. Configs: its script
# convert_hunyuan_image_to_diffusers; the second encoder is ByT5 small's, as HunyuanVideo 1.5's.
_BASE = Preset(
    name="hunyuanimage-2.1",
    models=("hunyuanvideo-community/HunyuanImage-2.1-Diffusers",),
    inputs=("text",),
    pipelines=("HunyuanImagePipeline",),
    match=dict(transformer=dict(num_layers=20, num_attention_heads=28, guidance_embeds=False)),
    arguments=dict(height=2048, width=2048, num_inference_steps=50),
    parameters=dict(transformer=17426, text_encoder=8292, text_encoder_2=218, vae=406),
    held=dict(transformer=929, text_encoder=545),
    token=(1, 32, 32),
    width=3584,
    licence="tencent-hunyuan-community",
    note="Guidance is the folder's: `guider/`.",
)

HUNYUAN_IMAGE = Family(
    prefix="HunyuanImage",
    sends=("sigmas",),
    presets=(
        _BASE,
        replace(
            _BASE,
            name="hunyuanimage-2.1-distilled",
            models=("hunyuanvideo-community/HunyuanImage-2.1-Distilled-Diffusers",),
            match=dict(transformer=dict(num_layers=20, num_attention_heads=28, guidance_embeds=True)),
            arguments=dict(height=2048, width=2048, num_inference_steps=8, distilled_guidance_scale=3.25),
            parameters={**_BASE.parameters, "transformer": 17453},
            held={**_BASE.held, "transformer": 957},
            note="Distilled: guidance is `distilled_guidance_scale`.",
        ),
    ),
)
