"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family, Sibling, TrainingInput
from framefleet.pipeline.model.families.preset import Preset

STABLE_DIFFUSION_3 = Family(
    prefix="StableDiffusion3",
    default_size="config",
    sends=(),
    siblings=(
        Sibling(
            task="image_to_image",
            source="StableDiffusion3Pipeline",
            target="StableDiffusion3Img2ImgPipeline",
            noising="scale_noise",
        ),
    ),
    training={"StableDiffusion3Pipeline": TrainingInput(layout="image_shifted")},
    presets=(
        # Steps and guidance: the model card of each.
        Preset(
            name="sd3.5-large",
            models=("stabilityai/stable-diffusion-3.5-large",),
            inputs=("text",),
            pipelines=("StableDiffusion3Pipeline", "StableDiffusion3ModularPipeline"),
            match=dict(transformer=dict(num_layers=38, in_channels=16)),
            arguments=dict(height=1024, width=1024, num_inference_steps=28, guidance_scale=3.5),
            parameters=dict(
                transformer=8146, text_encoder=124, text_encoder_2=695, text_encoder_3=4762, vae=84
            ),
            held=dict(transformer=342, text_encoder_3=132),
            token=(1, 16, 16),
            width=2432,
            joined=True,
            licence="stabilityai-ai-community",
            scheduler="FlowMatchEuler",
            note="3.5 Large Turbo has the same configs and wants 4 steps and guidance 0: give them.",
        ),
        Preset(
            name="sd3-medium",
            models=("stabilityai/stable-diffusion-3-medium-diffusers",),
            inputs=("text",),
            pipelines=("StableDiffusion3Pipeline", "StableDiffusion3ModularPipeline"),
            match=dict(transformer=dict(num_layers=24, pos_embed_max_size=192)),
            arguments=dict(height=1024, width=1024, num_inference_steps=28, guidance_scale=7.0),
            dtype="fp16",
            parameters=dict(
                transformer=2085, text_encoder=124, text_encoder_2=695, text_encoder_3=4762, vae=84
            ),
            held=dict(transformer=161, text_encoder_3=132),
            token=(1, 16, 16),
            width=1536,
            joined=True,
            licence="stabilityai-ai-community",
            scheduler="FlowMatchEuler",
        ),
    ),
)
