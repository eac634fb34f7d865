"""Families of models whose pipelines are in this folder."""

from framefleet.api.families import Family, TrainingInput

OPENSORA_MAX_FRAMES = 129  # of the longest clips that it was trained on
ORIGINALS = "the original checkpoint of VideoCrafter or DynamiCrafter, or the folder of Open-Sora v2"
_OPENSORA, _CRAFTER = "framefleet.plugins.ports.opensora", "framefleet.plugins.ports.crafter"
_CRAFTER_SCHEDULERS = ("VideoCrafterDDIMScheduler",)  # clean latents have another scale at each timestep
# The first call under guidance is the one without an image.
_FROM_IMAGE = TrainingInput(layout="frame_by_frame", unprompted={"guidance_scale": 2.0})

PORTED_FAMILIES = (
    Family(
        prefix="OpenSora",
        max_frames=OPENSORA_MAX_FRAMES,
        drops_repeats=True,
        fps=24,
        sends=("sigmas",),
        training={
            "OpenSoraPipeline": TrainingInput(
                layout="in_tokens",
                unprompted={"frame_rate": None, "motion_score": None},  # a negative prompt has neither
                inputs=f"{_OPENSORA}.conditions:training_inputs",
            )
        },
        pipelines={"OpenSoraPipeline": f"{_OPENSORA}.pipeline_opensora"},
        components={"AutoencoderDCVideo": f"{_OPENSORA}.autoencoder_dc_video"},
        row_rules=f"{_OPENSORA}.conditions:row_rules",
        converter=f"{_OPENSORA}.convert:convert_opensora",
    ),
    Family(
        prefix="VideoCrafter",
        size_base=64,
        default_size="config",
        frame_factor=0,
        fps=10,
        fps_is_motion=True,
        schedulers=_CRAFTER_SCHEDULERS,
        training={
            "VideoCrafterPipeline": TrainingInput(layout="frame_by_frame"),
            "VideoCrafterImageToVideoPipeline": _FROM_IMAGE,
        },
        pipelines={
            "VideoCrafterImageToVideoPipeline": f"{_CRAFTER}.pipeline_videocrafter",
            "VideoCrafterPipeline": f"{_CRAFTER}.pipeline_videocrafter",
        },
        components={
            "VideoCrafterDDIMScheduler": f"{_CRAFTER}.scheduler",
            "VideoCrafterImageProjector": f"{_CRAFTER}.resampler",
            "VideoCrafterPooledImageProjector": f"{_CRAFTER}.resampler",
            "VideoCrafterUNet3DModel": f"{_CRAFTER}.unet",
        },
        converter=f"{_CRAFTER}.convert:convert_crafter",  # of DynamiCrafter's too
    ),
    Family(
        prefix="DynamiCrafter",
        size_base=64,
        default_size="config",
        frame_factor=0,
        fps=8,
        fps_is_motion=True,
        schedulers=_CRAFTER_SCHEDULERS,
        training={"DynamiCrafterPipeline": _FROM_IMAGE},
        pipelines={"DynamiCrafterPipeline": f"{_CRAFTER}.pipeline_dynamicrafter"},
    ),
)
