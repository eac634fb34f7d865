"""LTX-Video: from text and from an image."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family, Sibling, TrainingInput
from framefleet.pipeline.model.families.preset import Preset

LTX = Family(
    prefix="LTX",
    fps=25,
    siblings=(Sibling(task="image_to_video", source="LTXPipeline", target="LTXImageToVideoPipeline"),),
    training={
        "LTXPipeline": TrainingInput(layout="normalised_in_tokens"),
        "LTXImageToVideoPipeline": TrainingInput(layout="normalised_in_tokens"),
    },
    presets=(
        # Size: the docstring of diffusers' LTXPipeline. The rate is its argument `frame_rate`.
        Preset(
            name="ltx-video",
            models=("Lightricks/LTX-Video",),
            inputs=("text", "image"),
            pipelines=("LTXPipeline", "LTXImageToVideoPipeline", "LTXModularPipeline"),
            match=dict(transformer=dict(num_layers=28, in_channels=128)),
            arguments=dict(height=480, width=704, num_frames=161, num_inference_steps=50, guidance_scale=3.0),
            fps=25,
            parameters=dict(transformer=1923, text_encoder=4762, vae=419),
            held=dict(transformer=110, text_encoder=132),
            token=(8, 32, 32),
            width=2048,
            joined=True,
            licence="LTX-Video's own",
            scheduler="FlowMatchEuler",
        ),
    ),
)
