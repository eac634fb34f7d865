"""Stable Diffusion 1 and XL."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family, Sibling, TrainingInput
from framefleet.pipeline.model.families.preset import Preset

STABLE_DIFFUSION = Family(
    prefix="StableDiffusion",
    default_size="config",
    siblings=tuple(
        Sibling(task="image_to_image", source=f"{name}Pipeline", target=f"{name}Img2ImgPipeline")
        for name in ("StableDiffusion", "StableDiffusionXL")
    ),
    training={
        "StableDiffusionPipeline": TrainingInput(layout="image"),
        "StableDiffusionXLPipeline": TrainingInput(
            layout="image_normalised",
            unprompted={"guidance_scale": 2.0},  # the first call under guidance is that one: it may be zeros
        ),
    },
    presets=(
        # Told from SDXL and from Stable Diffusion 2.1 by the scheduler that they ship. Their model cards.
        Preset(
            name="sdxl-turbo",
            models=("stabilityai/sdxl-turbo",),
            inputs=("text",),
            pipelines=("StableDiffusionXLPipeline",),
            match=dict(
                unet=dict(in_channels=4, cross_attention_dim=2048),
                scheduler=dict(_class_name="EulerAncestralDiscreteScheduler", timestep_spacing="trailing"),
            ),
            arguments=dict(height=512, width=512, num_inference_steps=1, guidance_scale=0.0),
            dtype="fp16",
            parameters=dict(unet=2567, text_encoder=123, text_encoder_2=695, vae=84),
            held=dict(unet=1627),
            token=(1, 8, 8),
            width=320,
            licence="sai-nc-community",
            scheduler="EulerAncestral, trailing",
            note="Distilled: 1 to 4 steps, guidance 0. The autoencoder decodes in fp32 by itself.",
        ),
        Preset(
            name="sd-turbo",
            models=("stabilityai/sd-turbo",),
            inputs=("text",),
            pipelines=("StableDiffusionPipeline",),
            match=dict(
                unet=dict(in_channels=4, cross_attention_dim=1024),
                scheduler=dict(timestep_spacing="trailing"),
            ),
            arguments=dict(height=512, width=512, num_inference_steps=1, guidance_scale=0.0),
            dtype="fp16",
            parameters=dict(unet=866, text_encoder=340, vae=84),
            held=dict(unet=359),
            token=(1, 8, 8),
            width=320,
            licence="sai-nc-community",
            scheduler="Euler, trailing",
            note="Distilled: 1 to 4 steps, guidance 0.",
        ),
        Preset(
            name="sdxl",
            models=("stabilityai/stable-diffusion-xl-base-1.0",),
            inputs=("text",),
            pipelines=("StableDiffusionXLPipeline", "StableDiffusionXLModularPipeline"),
            match=dict(unet=dict(sample_size=128, in_channels=4, cross_attention_dim=2048)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=5.0),
            dtype="fp16",
            parameters=dict(unet=2567, text_encoder=123, text_encoder_2=695, vae=84),
            held=dict(unet=1627),
            token=(1, 8, 8),
            width=320,
            joined=True,
            licence="openrail++",
            note="The autoencoder decodes in fp32 by itself.",
        ),
        Preset(
            name="sd1.5",
            models=("stable-diffusion-v1-5/stable-diffusion-v1-5",),
            inputs=("text",),
            pipelines=("StableDiffusionPipeline",),
            match=dict(unet=dict(sample_size=64, in_channels=4, cross_attention_dim=768)),
            arguments=dict(height=512, width=512, num_inference_steps=50, guidance_scale=7.5),
            dtype="fp16",
            parameters=dict(unet=860, text_encoder=123, safety_checker=304, vae=84),
            held=dict(unet=357),
            token=(1, 8, 8),
            width=320,
            joined=True,
            licence="creativeml-openrail-m",
        ),
    ),
)
