"""SANA-Video: from text and from an image."""

from __future__ import annotations

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

# Config: diffusers' script convert_sana_video_to_diffusers. Values of the call: the docstrings of
# SanaVideoPipeline and SanaImageToVideoPipeline.
_480P = Preset(
    name="sana-video-2b-480p",
    models=("Efficient-Large-Model/SANA-Video_2B_480p_diffusers",),
    inputs=("text",),
    pipelines=("SanaVideoPipeline",),
    match=dict(transformer=dict(num_layers=20, in_channels=16, sample_size=30)),
    arguments=dict(height=480, width=832, frames=81, num_inference_steps=50, guidance_scale=6.0),
    fps=16,
    parameters=dict(transformer=2057, text_encoder=2614, vae=127),
    held=dict(transformer=147, text_encoder=590),
    token=(4, 16, 16),
    width=2240,
    joined=True,
    licence="nvidia-open-model",
    scheduler="DPMSolver, flow_shift 8",
    note="The argument is `frames`. Sizes near one of its own are rendered at that, and resized.",
)

SANA_VIDEO = Family(prefix="SanaVideo", fps=16, sends=(), presets=(_480P,))
# Its name begins as those of SANA for images do.
SANA_IMAGE_TO_VIDEO = replace(
    SANA_VIDEO,
    prefix="SanaImageToVideo",
    presets=(
        replace(
            _480P,
            name="sana-video-2b-480p-i2v",
            models=(),
            inputs=("image",),
            pipelines=("SanaImageToVideoPipeline",),
            scheduler="FlowMatchEuler, shift 8",
            note=f"The weights of {_480P.name}, in the other pipeline. {_480P.note}",
        ),
    ),
)
