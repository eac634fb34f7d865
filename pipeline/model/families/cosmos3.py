"""Cosmos 3: frames, and sound where asked, of one network that reads the prompt itself."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family
from framefleet.pipeline.model.families.preset import Preset

COSMOS3 = Family(
    prefix="Cosmos3",
    fps=24,
    sends=(),
    presets=(
        # Values of the call: diffusers' documentation of Cosmos 3. Config: that of the hub's folder, as
        # others' tests quote it.
        Preset(
            name="cosmos3-nano",
            models=("nvidia/Cosmos3-Nano",),
            inputs=("text", "image", "video"),
            pipelines=("Cosmos3OmniPipeline",),
            match=dict(transformer=dict(hidden_size=4096, num_hidden_layers=36)),
            arguments=dict(
                height=720, width=1280, num_frames=189, num_inference_steps=35, guidance_scale=6.0
            ),
            fps=24,
            parameters=dict(transformer=15174, vae=705, sound_tokenizer=496),
            held=dict(transformer=1667),
            token=(4, 32, 32),
            width=4096,
            licence="see its card",
            scheduler="UniPC",
            note="Text to video wants `flow_shift` 10, and prompts as the JSON that it was trained on. "
            "Sound: `enable_sound`.",
        ),
    ),
)
