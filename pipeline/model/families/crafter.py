"""VideoCrafter 1 and 2 and DynamiCrafter, which diffusers lacks: from text and from images.

Sources of the presets: the authors' scripts/run_*.sh and configs/*.yaml (steps, guidance, eta). What `fps`
they are given lies in the config that a folder is converted with (models/crafter/variants.py, `default_fps`).
Their checkpoints become folders by `framefleet model convert`.
"""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset, TrainingInput

_MODULES = "framefleet.pipeline.models.crafter"
_SCHEDULERS = ("VideoCrafterDDIMScheduler",)  # clean latents have another scale at each timestep
# The first call under guidance is the one without an image.
_FROM_IMAGE = TrainingInput(layout="frame_by_frame", unprompted={"guidance_scale": 2.0})

_VIDEOCRAFTER2_T2V_512 = Preset(
    name="videocrafter2-t2v-512",
    pipelines=("VideoCrafterPipeline",),
    match=dict(
        unet=dict(use_temporal_conv=True, in_channels=4, cross_attention_dim=1024, sample_size=[40, 64])
    ),
    arguments=dict(
        height=320, width=512, num_frames=16, num_inference_steps=50, guidance_scale=12.0, eta=1.0
    ),
    dtype="fp16",
    parameters=dict(unet=1413, text_encoder=340, vae=84),
    held=dict(unet=610),
    token=(1, 8, 8),
    width=320,
    licence="apache-2.0",
    scheduler="VideoCrafterDDIM",
    note=(
        "Converted from model.ckpt of VideoCrafter/VideoCrafter2. `fps` is the motion asked for, "
        "not the rate of the clip."
    ),
)

VIDEOCRAFTER = Family(
    prefix="VideoCrafter",
    size_base=64,
    default_size="config",
    frame_factor=0,
    fps=10,
    fps_is_motion=True,
    schedulers=_SCHEDULERS,
    training={
        "VideoCrafterPipeline": TrainingInput(layout="frame_by_frame"),
        "VideoCrafterImageToVideoPipeline": _FROM_IMAGE,
    },
    pipelines={
        "VideoCrafterImageToVideoPipeline": f"{_MODULES}.pipeline_videocrafter",
        "VideoCrafterPipeline": f"{_MODULES}.pipeline_videocrafter",
    },
    components={
        "VideoCrafterDDIMScheduler": f"{_MODULES}.scheduler",
        "VideoCrafterImageProjector": f"{_MODULES}.resampler",
        "VideoCrafterPooledImageProjector": f"{_MODULES}.resampler",
        "VideoCrafterUNet3DModel": f"{_MODULES}.unet",
    },
    converter=f"{_MODULES}.convert:convert_crafter",  # of DynamiCrafter's too
    presets=(
        _VIDEOCRAFTER2_T2V_512,
        replace(
            _VIDEOCRAFTER2_T2V_512,
            name="videocrafter1-t2v-1024",
            match=dict(unet=dict(use_temporal_conv=False, cross_attention_dim=1024, sample_size=[72, 128])),
            arguments=dict(
                height=576, width=1024, num_frames=16, num_inference_steps=50, guidance_scale=12.0, eta=1.0
            ),
            parameters=dict(unet=1147, text_encoder=340, vae=84),
            held=dict(unet=512),
            note=(
                "Converted from model.ckpt of VideoCrafter/Text2Video-1024. `fps` is the motion asked "
                "for, not the rate of the clip."
            ),
        ),
        replace(
            _VIDEOCRAFTER2_T2V_512,
            name="videocrafter1-t2v-512",
            match=dict(unet=dict(use_temporal_conv=False, cross_attention_dim=1024, sample_size=[40, 64])),
            parameters=dict(unet=1144, text_encoder=340, vae=84),
            held=dict(unet=510),
            note="Converted from model.ckpt of VideoCrafter/Text2Video-512. Knows no `fps`.",
        ),
        replace(
            _VIDEOCRAFTER2_T2V_512,
            name="videocrafter1-i2v-512",
            inputs=("image",),
            pipelines=("VideoCrafterImageToVideoPipeline",),
            match=dict(unet=dict(in_channels=4, cross_attention_dim=1024, sample_size=[40, 64])),
            parameters=dict(unet=1439, text_encoder=340, image_encoder=631, image_projector=49, vae=84),
            held=dict(unet=621),
            note=(
                "Converted from model.ckpt of VideoCrafter/Image2Video-512. `fps` is the motion asked "
                "for, not the rate of the clip."
            ),
        ),
    ),
)

_DYNAMICRAFTER_512 = Preset(
    name="dynamicrafter-512",
    inputs=("image",),
    pipelines=("DynamiCrafterPipeline",),
    match=dict(unet=dict(cross_attention_dim=1024, sample_size=[40, 64], default_fps=24)),
    arguments=dict(
        height=320,
        width=512,
        num_frames=16,
        num_inference_steps=50,
        guidance_scale=7.5,
        guidance_rescale=0.7,
        eta=1.0,
    ),
    dtype="fp16",
    parameters=dict(unet=1439, text_encoder=340, image_encoder=631, image_projector=49, vae=84),
    held=dict(unet=621),
    token=(1, 8, 8),
    width=320,
    licence="apache-2.0",
    scheduler="VideoCrafterDDIM",
    note=("Converted from model.ckpt of Doubiiu/DynamiCrafter_512. `fps` 15 to 30: less is more motion."),
)

DYNAMICRAFTER = Family(
    prefix="DynamiCrafter",
    size_base=64,
    default_size="config",
    frame_factor=0,
    fps=8,
    fps_is_motion=True,
    schedulers=_SCHEDULERS,
    training={"DynamiCrafterPipeline": _FROM_IMAGE},
    pipelines={"DynamiCrafterPipeline": f"{_MODULES}.pipeline_dynamicrafter"},
    presets=(
        replace(
            _DYNAMICRAFTER_512,
            name="dynamicrafter-256",
            match=dict(unet=dict(cross_attention_dim=1024, sample_size=[32, 32], default_fps=3)),
            arguments=dict(
                height=256, width=256, num_frames=16, num_inference_steps=50, guidance_scale=7.5, eta=1.0
            ),
            note=(
                "Converted from model.ckpt of Doubiiu/DynamiCrafter. `fps` is the frame stride here, 1 to"
                " 6: more is more motion."
            ),
        ),
        _DYNAMICRAFTER_512,
        replace(
            _DYNAMICRAFTER_512,
            name="dynamicrafter-512-interp",
            match=dict(unet=dict(cross_attention_dim=1024, sample_size=[40, 64], default_fps=5)),
            note=(
                "Converted from model.ckpt of Doubiiu/DynamiCrafter_512_Interp. Renders from `image` to "
                "`last_image`; a loop where they are the same."
            ),
        ),
        replace(
            _DYNAMICRAFTER_512,
            name="dynamicrafter-1024",
            match=dict(unet=dict(cross_attention_dim=1024, sample_size=[72, 128], default_fps=10)),
            arguments={**_DYNAMICRAFTER_512.arguments, "height": 576, "width": 1024},
            note=(
                "Converted from model.ckpt of Doubiiu/DynamiCrafter_1024. `fps` 5 to 15: less is more motion."
            ),
        ),
    ),
)
