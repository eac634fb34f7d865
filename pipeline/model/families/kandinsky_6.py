"""Kandinsky 6: from text or an image, with sound.

Values of the calls: diffusers' documentation of Kandinsky 6, and the docstring of Kandinsky6TI2VAPipeline.
Config: github.com/kandinskylab/kandinsky-6 comfyui, DIT_CONFIG.
"""

from __future__ import annotations

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

_PRO = Preset(
    name="kandinsky-6-pro",
    models=("kandinskylab/Kandinsky-6.0-Pro-sft-5s-Diffusers",),
    inputs=("text", "image"),
    pipelines=("Kandinsky6TI2VAPipeline",),
    match=dict(transformer=dict(model_dim=4096, num_visual_blocks=60, in_visual_dim=16)),
    arguments=dict(height=480, width=864, num_frames=121, num_inference_steps=50, guidance_scale=5.0),
    fps=24,
    parameters=dict(transformer=30136, text_encoder=8292, text_encoder_2=123, vae=246),
    held=dict(transformer=528, text_encoder=545),
    token=(4, 16, 16),
    width=4096,
    licence="see its card",
    note="Makes sound too, whose autoencoder is not counted.",
)

KANDINSKY_6 = Family(
    prefix="Kandinsky6",
    fps=24,
    sends=(),
    presets=(
        replace(
            _PRO,
            name="kandinsky-6-pro-distill",
            models=("kandinskylab/Kandinsky-6.0-Pro-distill-5s-Diffusers",),
            match={**_PRO.match, "scheduler": dict(_class_name="PiflowScheduler")},
            arguments={**_PRO.arguments, "num_inference_steps": 16, "guidance_scale": 1.0},
            scheduler="Piflow",
            note="Distilled: guidance 1. Makes sound too, whose autoencoder is not counted.",
        ),
        _PRO,
    ),
)
