"""Qwen-Image."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family, Sibling
from framefleet.pipeline.model.families.preset import Preset

QWEN_IMAGE = Family(
    prefix="QwenImage",
    default_size=128,
    siblings=(
        Sibling(
            task="image_to_image",
            source="QwenImagePipeline",
            target="QwenImageImg2ImgPipeline",
            noising="scale_noise",
        ),
    ),
    presets=(
        # The call's defaults.
        Preset(
            name="qwen-image",
            models=("Qwen/Qwen-Image",),
            inputs=("text", "image"),
            pipelines=("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
            match=dict(transformer=dict(num_layers=60, num_attention_heads=24)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, true_cfg_scale=4.0),
            parameters=dict(transformer=20430, text_encoder=8292, vae=127),
            held=dict(transformer=380, text_encoder=545),
            token=(1, 16, 16),
            width=3072,
            licence="apache-2.0",
            scheduler="FlowMatchEuler, dynamic shift",
            note="Guidance is `true_cfg_scale`, and only with a `negative_prompt`, which may be a space.",
        ),
    ),
)
