"""Allegro, from text."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

ALLEGRO = Family(
    prefix="Allegro",
    default_size="config",
    frame_factor=0,
    fps=15,
    joins_prompts=True,
    presets=(
        # Size and frames: the config of its transformer, times its autoencoder's factors. The rest: signature
        # and docstring of diffusers' AllegroPipeline.
        Preset(
            name="allegro",
            models=("rhymes-ai/Allegro",),
            inputs=("text",),
            pipelines=("AllegroPipeline",),
            match=dict(transformer=dict(num_layers=32, in_channels=4)),
            arguments=dict(
                height=720, width=1280, num_frames=88, num_inference_steps=100, guidance_scale=7.5
            ),
            fps=15,
            dtypes=dict(vae="fp32"),
            parameters=dict(transformer=2772, text_encoder=4762, vae=175),
            held=dict(transformer=138, text_encoder=132),
            token=(4, 16, 16),
            width=2304,
            joined=True,
            licence="apache-2.0",
            note="Decodes with `vae_tiling: true` only, 24 frames or more.",
        ),
    ),
)
