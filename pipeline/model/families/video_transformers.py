"""Transformers that render videos, of authors with one family."""

from framefleet.pipeline.model.families.family import Family, Preset

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
            pipelines=("AllegroPipeline",),
            match=dict(transformer=dict(num_layers=32, in_channels=4)),
            arguments=dict(
                height=720, width=1280, num_frames=88, num_inference_steps=100, guidance_scale=7.5
            ),
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

# Wan made to render in few steps.
ANYFLOW = Family(
    prefix="AnyFlow",
    fps=16,
    sends=(),
    presets=(
        # Frames, steps and rate: the docstring of diffusers' AnyFlowPipeline; the rest: its signature.
        Preset(
            name="anyflow-wan2.1-t2v-14b",
            models=("nvidia/AnyFlow-Wan2.1-T2V-14B-Diffusers",),
            pipelines=("AnyFlowPipeline",),
            match=dict(transformer=dict(num_layers=40, in_channels=16)),
            arguments=dict(height=480, width=832, num_frames=33, num_inference_steps=4, guidance_scale=1.0),
            parameters=dict(transformer=14316, text_encoder=5681, vae=127),
            held=dict(transformer=612, text_encoder=1050),
            token=(4, 16, 16),
            width=5120,
            licence="see its card",
        ),
    ),
)

# Frames, and sound where asked, of one network that reads the prompt itself.
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

# It renders chunk after chunk: from text, from an image, over a video.
HELIOS = Family(
    prefix="Helios",
    # Chunks are decoded to 33 frames each, and together cut to 4k + 1: up to 129 that is 32k + 1. Longer
    # clips come out as long as asked, or up to four frames longer.
    frame_factor=8,
    fps=24,
    presets=(
        # Size, guidance, rate, precision: the docstring of diffusers' HeliosPipeline.
        Preset(
            name="helios-base",
            models=("BestWishYsh/Helios-Base",),
            inputs=("text", "image", "video"),
            pipelines=("HeliosPipeline",),
            match=dict(transformer=dict(num_layers=40, in_channels=16)),
            arguments=dict(height=384, width=640, num_frames=129, num_inference_steps=50, guidance_scale=5.0),
            dtypes=dict(vae="fp32"),
            parameters=dict(transformer=14312, text_encoder=5681, vae=127),
            held=dict(transformer=608, text_encoder=1050),
            token=(4, 16, 16),
            width=5120,
            licence="see its card",
            note=(
                "Asked for 132 frames, as in diffusers' example, it renders 129. "
                "`HeliosPyramidPipeline` has steps of its own for each size."
            ),
        ),
    ),
)

MOCHI = Family(
    prefix="Mochi",
    default_size=(480, 848),
    fps=30,
    joins_prompts=True,
    # It renders with inverted sigmas, which no other scheduler has.
    schedulers=("FlowMatchEulerDiscreteScheduler",),
    presets=(
        # Size: the pipeline's own. Steps and guidance: the docstring of diffusers' MochiPipeline; frames and
        # rate: its documentation.
        Preset(
            name="mochi-1-preview",
            models=("genmo/mochi-1-preview",),
            pipelines=("MochiPipeline",),
            match=dict(transformer=dict(num_layers=48, in_channels=12)),
            arguments=dict(height=480, width=848, num_frames=85, num_inference_steps=28, guidance_scale=3.5),
            parameters=dict(transformer=10028, text_encoder=4762, vae=460),
            held=dict(transformer=306, text_encoder=132),
            token=(6, 16, 16),
            width=3072,
            joined=True,
            licence="apache-2.0",
            note="Made for 6k + 1 frames, up to 163.",
        ),
    ),
)
