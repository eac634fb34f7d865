"""Flux 1, and Flux.2 with its smaller Klein."""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset, TrainingInput, redrawn

# Diffusers' documentation of Flux.
_DEV = Preset(
    name="flux.1-dev",
    models=("black-forest-labs/FLUX.1-dev",),
    pipelines=("FluxPipeline", "FluxModularPipeline"),
    match=dict(transformer=dict(num_layers=19, in_channels=64, guidance_embeds=True)),
    arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=3.5),
    parameters=dict(transformer=11901, text_encoder=123, text_encoder_2=4762, vae=84),
    held=dict(transformer=404, text_encoder_2=132),
    token=(1, 16, 16),
    width=3072,
    licence="flux-1-dev-non-commercial",
    scheduler="FlowMatchEuler",
)
FLUX = Family(
    prefix="Flux",
    default_size=128,
    reads_guidance_once=True,
    sends=("mu",),
    siblings=redrawn("Flux"),
    training={"FluxPipeline": TrainingInput(layout="image_in_tokens")},
    presets=(
        _DEV,
        replace(
            _DEV,
            name="flux.1-schnell",
            models=("black-forest-labs/FLUX.1-schnell",),
            match=dict(transformer=dict(num_layers=19, in_channels=64, guidance_embeds=False)),
            arguments=dict(
                height=1024, width=1024, num_inference_steps=4, guidance_scale=0.0, max_sequence_length=256
            ),
            parameters={**_DEV.parameters, "transformer": 11891},
            held=dict(transformer=394, text_encoder_2=132),
            licence="apache-2.0",
            note="Takes prompts of at most 256 tokens.",
        ),
        # Guidance and steps: the docstrings, and the call's defaults.
        replace(
            _DEV,
            name="flux.1-kontext-dev",
            models=("black-forest-labs/FLUX.1-Kontext-dev",),
            inputs=("text", "image"),
            pipelines=("FluxKontextPipeline",),
            arguments={**_DEV.arguments, "num_inference_steps": 28, "guidance_scale": 2.5},
        ),
        replace(
            _DEV,
            name="flux.1-fill-dev",
            models=("black-forest-labs/FLUX.1-Fill-dev",),
            inputs=("text", "image", "mask_image"),
            pipelines=("FluxFillPipeline",),
            match=dict(transformer=dict(num_layers=19, in_channels=384)),
            arguments={**_DEV.arguments, "guidance_scale": 30.0},
            parameters={**_DEV.parameters, "transformer": 11902},
            held=dict(transformer=405, text_encoder_2=132),
        ),
    ),
)

FLUX2 = Family(
    prefix="Flux2",
    default_size=128,
    reads_guidance_once=True,
    sends=("mu",),
    presets=(
        # The call's defaults; the docstring's example has guidance 2.5.
        Preset(
            name="flux.2-dev",
            models=("black-forest-labs/FLUX.2-dev",),
            inputs=("text", "image"),
            pipelines=("Flux2Pipeline",),
            match=dict(transformer=dict(num_layers=8, num_single_layers=48)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=4.0),
            parameters=dict(transformer=32223, text_encoder=24011, vae=84),
            held=dict(transformer=1798, text_encoder=671),
            token=(1, 16, 16),
            width=6144,
            licence="flux-non-commercial",
            scheduler="FlowMatchEuler",
        ),
    ),
)
# Steps of the distilled: the default of Flux2KleinKVPipeline's call. Of the others: the docstring.
_KLEIN = Preset(
    name="flux.2-klein",
    models=("black-forest-labs/FLUX.2-klein-4B", "black-forest-labs/FLUX.2-klein-9B"),
    inputs=("text", "image"),
    pipelines=("Flux2KleinPipeline",),
    match=dict(transformer=dict(in_channels=128), index=dict(is_distilled=True)),
    arguments=dict(height=1024, width=1024, num_inference_steps=4, guidance_scale=1.0),
    parameters=dict(transformer=3876, text_encoder=4022, vae=84),
    held=dict(transformer=440, text_encoder=389),
    token=(1, 16, 16),
    width=3072,
    licence="apache-2.0; 9B: flux-non-commercial",
    scheduler="FlowMatchEuler",
    note="Distilled: ignores guidance. Weights are those of 4B.",
)
_KLEIN_BASE = replace(
    _KLEIN,
    name="flux.2-klein-base",
    models=("black-forest-labs/FLUX.2-klein-base-4B", "black-forest-labs/FLUX.2-klein-base-9B"),
    match=dict(transformer=dict(in_channels=128), index=dict(is_distilled=False)),
    arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=4.0),
    note="Weights are those of 4B.",
)
FLUX2_KLEIN = Family(
    prefix="Flux2Klein",
    default_size=128,
    sends=("mu",),
    presets=(_KLEIN, _KLEIN_BASE),
)
