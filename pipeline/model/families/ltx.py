"""LTX-Video and LTX-2: from text and from an image, LTX-2 with sound."""

from framefleet.pipeline.model.families.family import Family, Preset, Sibling, TrainingInput

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

LTX2 = Family(
    prefix="LTX2",
    default_size="config",
    fps=24,
    siblings=(Sibling(task="image_to_video", source="LTX2Pipeline", target="LTX2ImageToVideoPipeline"),),
    presets=(
        # Values of the call: the docstring of diffusers' LTX2Pipeline. Configs: its
        # script convert_ltx2_to_diffusers; the text encoder is Gemma 3 12B.
        Preset(
            name="ltx-2",
            models=("Lightricks/LTX-2",),
            inputs=("text", "image"),
            pipelines=("LTX2Pipeline", "LTX2ImageToVideoPipeline"),
            match=dict(transformer=dict(num_layers=48, in_channels=128)),
            arguments=dict(height=512, width=768, num_frames=121, num_inference_steps=30, guidance_scale=3.0),
            parameters=dict(transformer=18876, text_encoder=12203, vae=1222, audio_vae=53),
            held=dict(transformer=731, text_encoder=1007),
            token=(8, 32, 32),
            width=4096,
            joined=True,
            licence="LTX-2's own: its community licence",
            note="Makes sound too. `stg_scale` and `modality_scale` above their least cost a forward each.",
        ),
    ),
)
