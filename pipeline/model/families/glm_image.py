"""GLM-Image."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

GLM_IMAGE = Family(
    prefix="GlmImage",
    default_size=128,
    presets=(
        # The call's defaults. Network: SGLang's GlmImageArchConfig; the language model: the defaults of
        # transformers' GlmImageConfig.
        Preset(
            name="glm-image",
            models=("zai-org/GLM-Image",),
            inputs=("text",),
            pipelines=("GlmImagePipeline",),
            match=dict(transformer=dict(num_layers=30, prior_vq_quantizer_codebook_size=16384)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=1.5),
            parameters=dict(transformer=6927, vision_language_encoder=10114, text_encoder=218, vae=84),
            held=dict(transformer=356, vision_language_encoder=688),
            token=(1, 16, 16),
            width=4096,
            licence="see its card",
            note="A language model draws the picture's tokens first, one by one. Texts in it: in quotes.",
        ),
    ),
)
