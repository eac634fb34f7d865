"""HunyuanVideo 1.5: from text and from an image; guided by an object that the folder holds."""

from __future__ import annotations

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

# Configs, shifts and guidance: diffusers' script convert_hunyuan_video1_5_to_diffusers. Sizes: what the
# pipeline makes of `target_size`. Steps and precision: the docstring of HunyuanVideo15Pipeline; the rate:
# that of HunyuanVideo15ImageToVideoPipeline.
_480P = Preset(
    name="hunyuanvideo-1.5-480p-t2v",
    models=("hunyuanvideo-community/HunyuanVideo-1.5-480p_t2v",),
    inputs=("text",),
    pipelines=("HunyuanVideo15Pipeline",),
    match=dict(transformer=dict(num_layers=54, target_size=640)),
    arguments=dict(height=480, width=848, num_frames=121, num_inference_steps=50),
    fps=24,
    dtype="fp16",
    parameters=dict(transformer=8327, text_encoder=7071, text_encoder_2=218, vae=1261),
    held=dict(transformer=321, text_encoder=545),
    token=(4, 16, 16),
    width=2048,
    licence="tencent-hunyuan-community",
    scheduler="FlowMatchEuler, shift 5",
    note="Guidance, 6, is the folder's: `guider/`. Distilled ones have 1.",
)

HUNYUANVIDEO_1_5 = Family(
    prefix="HunyuanVideo15",
    size_base=16,
    fps=24,
    sends=("sigmas",),
    presets=(
        _480P,
        replace(
            _480P,
            name="hunyuanvideo-1.5-720p-t2v",
            models=("hunyuanvideo-community/HunyuanVideo-1.5-720p_t2v",),
            match=dict(transformer=dict(num_layers=54, target_size=960)),
            arguments={**_480P.arguments, "height": 720, "width": 1280},
            scheduler="FlowMatchEuler, shift 9",
        ),
    ),
)
