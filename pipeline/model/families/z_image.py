"""Z-Image."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family, Sibling
from framefleet.pipeline.model.families.preset import Preset

Z_IMAGE = Family(
    prefix="ZImage",
    siblings=(
        Sibling(
            task="image_to_image",
            source="ZImagePipeline",
            target="ZImageImg2ImgPipeline",
            noising="scale_noise",
        ),
    ),
    presets=(
        # Told from Z-Image by its scheduler's shift. The docstring of diffusers' ZImagePipeline.
        Preset(
            name="z-image-turbo",
            models=("Tongyi-MAI/Z-Image-Turbo",),
            inputs=("text", "image"),
            pipelines=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
            match=dict(transformer=dict(n_layers=30, cap_feat_dim=2560), scheduler=dict(shift=3.0)),
            arguments=dict(height=1024, width=1024, num_inference_steps=8, guidance_scale=0.0),
            parameters=dict(transformer=6155, text_encoder=4022, vae=84),
            held=dict(transformer=193, text_encoder=389),
            token=(1, 16, 16),
            width=3840,
            licence="apache-2.0",
            scheduler="FlowMatchEuler, shift 3",
            note="Distilled: guidance 0. An image to start from must have the size that is rendered.",
        ),
    ),
)
