"""SANA and SANA-Sprint, for images."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

SANA = Family(
    prefix="SanaPipeline",
    presets=(
        # The call's defaults.
        Preset(
            name="sana-1.6b",
            models=("Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",),
            inputs=("text",),
            pipelines=("SanaPipeline",),
            match=dict(transformer=dict(num_layers=20, num_attention_heads=70, sample_size=32)),
            arguments=dict(height=1024, width=1024, num_inference_steps=20, guidance_scale=4.5),
            parameters=dict(transformer=1604, text_encoder=2614, vae=312),
            held=dict(transformer=124, text_encoder=590),
            token=(1, 32, 32),
            width=2240,
            joined=True,
            licence="NSCL v2-custom, NVIDIA's",
        ),
    ),
)

SANA_SPRINT = Family(
    prefix="SanaSprint",
    reads_guidance_once=True,
    schedulers=("SCMScheduler",),  # its steps are angles between picture and noise
    presets=(
        # The call's defaults.
        Preset(
            name="sana-sprint-1.6b",
            models=("Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",),
            inputs=("text", "image"),
            pipelines=("SanaSprintPipeline", "SanaSprintImg2ImgPipeline"),
            match=dict(transformer=dict(num_layers=20, num_attention_heads=70, guidance_embeds=True)),
            arguments=dict(height=1024, width=1024, num_inference_steps=2, guidance_scale=4.5),
            parameters=dict(transformer=1610, text_encoder=2614, vae=312),
            held=dict(transformer=130, text_encoder=590),
            token=(1, 32, 32),
            width=2240,
            licence="NSCL v2-custom, NVIDIA's",
            scheduler="SCM",
            note="With other than 2 steps, `intermediate_timesteps` is to be null, which no cell can say.",
        ),
    ),
)
