"""Families of models that render videos, in the order in which messages list them."""

from framefleet.pipeline.model.families.family import Family, Sibling, TrainingInput

_COGVIDEOX_SCHEDULERS = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")

VIDEO_FAMILIES = (
    Family(
        prefix="Wan",
        fps=16,
        fps_when={"index.expand_timesteps": 24.0},  # Wan 2.2 TI2V-5B
        sends=(),
        siblings=(
            Sibling(
                task="image_to_video",
                source="WanPipeline",
                target="WanImageToVideoPipeline",
                when={"index.expand_timesteps": True},
                otherwise=(
                    "its weights start from text alone",
                    "use a Wan 2.2 TI2V model, or an image-to-video folder",
                ),
            ),
            Sibling(
                task="video_to_video",
                source="WanPipeline",
                target="WanVideoToVideoPipeline",
                when={"index.expand_timesteps": False, "index.boundary_ratio": False},
                otherwise=(
                    "diffusers' WanVideoToVideoPipeline knows neither two transformers nor the autoencoder "
                    "of Wan 2.2 TI2V",
                    "use a Wan 2.1 text-to-video model",
                ),
            ),
        ),
        training={
            "WanPipeline": TrainingInput(layout="normalised"),
            "WanImageToVideoPipeline": TrainingInput(layout="normalised"),
        },
    ),
    Family(
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
        schedulers=_COGVIDEOX_SCHEDULERS,
        siblings=(
            Sibling(
                task="video_to_video",
                source="CogVideoXPipeline",
                target="CogVideoXVideoToVideoPipeline",
                redraws_when={"transformer.patch_size_t": False},
                # It takes even numbers of latent frames only, which 8k frames have, and not the 8k + 1 of
                # text to video.
                otherwise=(
                    "diffusers' CogVideoXVideoToVideoPipeline takes 8k frames of it only",
                    "use CogVideoX 2B or 5B",
                ),
            ),
        ),
        training={
            "CogVideoXPipeline": TrainingInput(layout="frames_first"),
            "CogVideoXImageToVideoPipeline": TrainingInput(layout="frames_first"),
        },
    ),
    Family(
        prefix="LTX",
        fps=25,
        siblings=(Sibling(task="image_to_video", source="LTXPipeline", target="LTXImageToVideoPipeline"),),
        training={
            "LTXPipeline": TrainingInput(layout="normalised_in_tokens"),
            "LTXImageToVideoPipeline": TrainingInput(layout="normalised_in_tokens"),
        },
    ),
    Family(
        prefix="HunyuanVideo",
        default_size="config",
        fps=24,
        sends=("sigmas",),
        training={"HunyuanVideoPipeline": TrainingInput(layout="scaled")},
    ),
    Family(
        prefix="SkyReelsV2",  # also by diffusion forcing, which goes on from a video
        fps=24,
        dtypes={"default": "bf16", "vae": "fp32"},
        sends=(),
        siblings=(
            Sibling(
                task="image_to_video",
                source="SkyReelsV2DiffusionForcingPipeline",
                target="SkyReelsV2DiffusionForcingImageToVideoPipeline",
            ),
        ),
    ),
    Family(prefix="Kandinsky5", fps=24, sends=()),
    Family(prefix="SanaVideo", fps=16, sends=()),
    Family(prefix="SanaWM", license="apache-2.0"),
    # It renders chunk after chunk: from text, from an image, over a video.
    Family(
        prefix="Helios",
        # Chunks are decoded to 33 frames each, and together cut to 4k + 1: up to 129 that is 32k + 1. Longer
        # clips come out as long as asked, or up to four frames longer.
        frame_factor=8,
        fps=24,
    ),
    Family(
        prefix="Mochi",
        default_size=(480, 848),
        fps=30,
        joins_prompts=True,
        # It renders with inverted sigmas, which no other scheduler has.
        schedulers=("FlowMatchEulerDiscreteScheduler",),
    ),
    # A motion module for Stable Diffusion 1.5.
    Family(
        prefix="AnimateDiff",
        default_size="config",
        frame_factor=0,
        fps=8,
        siblings=(
            Sibling(
                task="video_to_video", source="AnimateDiffPipeline", target="AnimateDiffVideoToVideoPipeline"
            ),
        ),
        training={"AnimateDiffPipeline": TrainingInput(layout="frame_by_frame")},
    ),
    Family(prefix="StableVideoDiffusion", frame_factor=0, fps=7),
    Family(
        prefix="LTX2",
        default_size="config",
        fps=24,
        license="ltx-2",
        siblings=(Sibling(task="image_to_video", source="LTX2Pipeline", target="LTX2ImageToVideoPipeline"),),
    ),
    # Guided by an object that the folder holds.
    Family(prefix="HunyuanVideo15", size_base=16, fps=24, sends=("sigmas",)),
    Family(prefix="Kandinsky6", fps=24, sends=()),
    # Frames, and sound where asked, of one network that reads the prompt itself.
    Family(prefix="Cosmos3", fps=24, sends=()),
    Family(prefix="Allegro", default_size="config", frame_factor=0, fps=15, joins_prompts=True),
    # Wan made to render in few steps.
    Family(prefix="AnyFlow", fps=16, sends=()),
    Family(prefix="MiniMaxH3", license="minimax-h3"),
    Family(prefix="SanaImageToVideo", fps=16, sends=()),  # begins as those of SANA for images do
    # Without presets.
    Family(prefix="ChronoEdit", fps=16, sends=()),
    Family(prefix="EasyAnimate", fps=8),
    Family(
        prefix="ConsisID",
        default_size="config",
        frame_factor=2,
        fps=8,
        joins_prompts=True,
        schedulers=_COGVIDEOX_SCHEDULERS,
    ),
    Family(prefix="HunyuanSkyreels", fps=24, sends=("sigmas",)),
    Family(prefix="Latte", default_size="config", frame_factor=0, fps=8, joins_prompts=True),
    Family(prefix="Lucy", fps=24, sends=(), dtypes={"default": "bf16", "vae": "fp32"}),
    Family(prefix="MotifVideo", fps=24),
    Family(prefix="TextToVideo", default_size="config", frame_factor=0, fps=8),
)
