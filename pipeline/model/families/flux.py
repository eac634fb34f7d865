"""Flux 1."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family, Sibling, TrainingInput
from framefleet.pipeline.model.families.preset import Preset

FLUX = Family(
    prefix="Flux",
    default_size=128,
    reads_guidance_once=True,
    sends=("mu",),
    siblings=(
        Sibling(
            task="image_to_image", source="FluxPipeline", target="FluxImg2ImgPipeline", noising="scale_noise"
        ),
    ),
    training={"FluxPipeline": TrainingInput(layout="image_in_tokens")},
    presets=(
        # Diffusers' documentation of Flux.
        Preset(
            name="flux.1-dev",
            models=("black-forest-labs/FLUX.1-dev",),
            inputs=("text",),
            pipelines=("FluxPipeline", "FluxModularPipeline"),
            match=dict(transformer=dict(num_layers=19, in_channels=64, guidance_embeds=True)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=3.5),
            parameters=dict(transformer=11901, text_encoder=123, text_encoder_2=4762, vae=84),
            held=dict(transformer=404, text_encoder_2=132),
            token=(1, 16, 16),
            width=3072,
            licence="flux-1-dev-non-commercial",
            scheduler="FlowMatchEuler",
        ),
        Preset(
            name="flux.1-schnell",
            models=("black-forest-labs/FLUX.1-schnell",),
            inputs=("text",),
            pipelines=("FluxPipeline", "FluxModularPipeline"),
            match=dict(transformer=dict(num_layers=19, in_channels=64, guidance_embeds=False)),
            arguments=dict(
                height=1024, width=1024, num_inference_steps=4, guidance_scale=0.0, max_sequence_length=256
            ),
            parameters=dict(transformer=11891, text_encoder=123, text_encoder_2=4762, vae=84),
            held=dict(transformer=394, text_encoder_2=132),
            token=(1, 16, 16),
            width=3072,
            licence="apache-2.0",
            scheduler="FlowMatchEuler",
            note="Takes prompts of at most 256 tokens.",
        ),
        # Guidance and steps: the docstrings, and the call's defaults.
        Preset(
            name="flux.1-kontext-dev",
            models=("black-forest-labs/FLUX.1-Kontext-dev",),
            inputs=("text", "image"),
            pipelines=("FluxKontextPipeline",),
            match=dict(transformer=dict(num_layers=19, in_channels=64, guidance_embeds=True)),
            arguments=dict(height=1024, width=1024, num_inference_steps=28, guidance_scale=2.5),
            parameters=dict(transformer=11901, text_encoder=123, text_encoder_2=4762, vae=84),
            held=dict(transformer=404, text_encoder_2=132),
            token=(1, 16, 16),
            width=3072,
            licence="flux-1-dev-non-commercial",
            scheduler="FlowMatchEuler",
        ),
        Preset(
            name="flux.1-fill-dev",
            models=("black-forest-labs/FLUX.1-Fill-dev",),
            inputs=("text", "image", "mask_image"),
            pipelines=("FluxFillPipeline",),
            match=dict(transformer=dict(num_layers=19, in_channels=384)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=30.0),
            parameters=dict(transformer=11902, text_encoder=123, text_encoder_2=4762, vae=84),
            held=dict(transformer=405, text_encoder_2=132),
            token=(1, 16, 16),
            width=3072,
            licence="flux-1-dev-non-commercial",
            scheduler="FlowMatchEuler",
        ),
    ),
)
