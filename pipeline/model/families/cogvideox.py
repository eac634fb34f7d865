"""CogVideoX 2B, 5B and 1.5: from text, from an image, over a video."""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset, Sibling, TrainingInput

COGVIDEOX_SCHEDULERS = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
# It takes even numbers of latent frames only, which 8k frames have, and not the 8k + 1 of text to video.
_EVEN = ("diffusers' CogVideoXVideoToVideoPipeline takes 8k frames of it only", "use CogVideoX 2B or 5B")

# Sizes, frames, rate, precision: the table in the model card of zai-org/CogVideoX1.5-5B.
_5B_1_5 = Preset(
    name="cogvideox1.5-5b",
    models=("zai-org/CogVideoX1.5-5B",),
    inputs=("text", "video"),
    pipelines=("CogVideoXPipeline", "CogVideoXVideoToVideoPipeline"),
    match=dict(transformer=dict(num_layers=42, in_channels=16, patch_size_t=2)),
    arguments=dict(height=768, width=1360, num_frames=81, num_inference_steps=50, guidance_scale=6.0),
    fps=16,
    parameters=dict(transformer=5571, text_encoder=4762, vae=216),
    held=dict(transformer=151, text_encoder=132),
    token=(8, 16, 16),
    width=3072,
    joined=True,
    download_gb=31.1,
    licence="cogvideox",
    note="Made for 16k + 1 frames, up to 161.",
)
_5B = replace(
    _5B_1_5,
    name="cogvideox-5b",
    models=("zai-org/CogVideoX-5b",),
    match=dict(transformer=dict(num_layers=42, in_channels=16)),
    arguments={**_5B_1_5.arguments, "height": 480, "width": 720, "num_frames": 49},
    fps=8,
    parameters={**_5B_1_5.parameters, "transformer": 5570},
    held=dict(transformer=150, text_encoder=132),
    token=(4, 16, 16),
    download_gb=21.5,
    scheduler="CogVideoXDDIM",
    note="",
)

COGVIDEOX = Family(
    prefix="CogVideoX",
    default_size="config",
    # It decodes two latent frames at a time: only an odd number of them (8k + 1 frames) comes back whole.
    frame_factor=2,
    # CogVideoX 1.5 renders over videos whose latent frames fill its patches of two, which 8k frames do.
    whole_when={"CogVideoXVideoToVideoPipeline": "transformer.patch_size_t"},
    fps=8,
    fps_when={"transformer.patch_size_t": 16.0},  # CogVideoX 1.5
    text_positions=226,  # CogVideoXTransformer3DModel's own default
    joins_prompts=True,
    schedulers=COGVIDEOX_SCHEDULERS,
    siblings=(
        Sibling(
            task="video_to_video",
            source="CogVideoXPipeline",
            target="CogVideoXVideoToVideoPipeline",
            redraws_when={"transformer.patch_size_t": False},
            otherwise=_EVEN,
        ),
    ),
    training={
        "CogVideoXPipeline": TrainingInput(layout="frames_first"),
        "CogVideoXImageToVideoPipeline": TrainingInput(layout="frames_first"),
    },
    presets=(
        _5B_1_5,
        replace(
            _5B_1_5,
            name="cogvideox1.5-5b-i2v",
            models=("zai-org/CogVideoX1.5-5B-I2V",),
            inputs=("image",),
            pipelines=("CogVideoXImageToVideoPipeline",),
            match=dict(transformer=dict(num_layers=42, in_channels=32, patch_size_t=2)),
            parameters={**_5B_1_5.parameters, "transformer": 5572},
            download_gb=None,
            note="Made for 16k + 1 frames, up to 161, the shorter side 768 pixels.",
        ),
        _5B,
        replace(
            _5B,
            name="cogvideox-5b-i2v",
            models=("zai-org/CogVideoX-5b-I2V",),
            inputs=("image",),
            pipelines=("CogVideoXImageToVideoPipeline",),
            match=dict(transformer=dict(num_layers=42, in_channels=32)),
            download_gb=None,
            scheduler="",
            note="Learned the positions of 480 x 720 pixels: other sizes are refused.",
        ),
        replace(
            _5B,
            name="cogvideox-2b",
            models=("zai-org/CogVideoX-2b",),
            match=dict(transformer=dict(num_layers=30, in_channels=16)),
            dtype="fp16",  # as its authors advise
            parameters={**_5B.parameters, "transformer": 1694},
            held=dict(transformer=67, text_encoder=132),
            width=1920,
            download_gb=13.8,
            licence="apache-2.0",
            scheduler="",
        ),
    ),
)
