"""Stable Diffusion 1, XL and 3, Stable Video Diffusion, and what was made of 1.5."""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset, Sibling, TrainingInput, redrawn

_SDXL = Preset(
    name="sdxl",
    models=("stabilityai/stable-diffusion-xl-base-1.0",),
    pipelines=("StableDiffusionXLPipeline", "StableDiffusionXLModularPipeline"),
    match=dict(unet=dict(sample_size=128, in_channels=4, cross_attention_dim=2048)),
    arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=5.0),
    dtype="fp16",
    parameters=dict(unet=2567, text_encoder=123, text_encoder_2=695, vae=84),
    held=dict(unet=1627),
    token=(1, 8, 8),
    width=320,
    joined=True,
    licence="openrail++",
    note="The autoencoder decodes in fp32 by itself.",
)
# Distinguished from SDXL and from Stable Diffusion 2.1 by the scheduler that they ship. Their model cards.
_SDXL_TURBO = replace(
    _SDXL,
    name="sdxl-turbo",
    models=("stabilityai/sdxl-turbo",),
    pipelines=("StableDiffusionXLPipeline",),
    match=dict(
        unet=dict(in_channels=4, cross_attention_dim=2048),
        scheduler=dict(_class_name="EulerAncestralDiscreteScheduler", timestep_spacing="trailing"),
    ),
    arguments=dict(height=512, width=512, num_inference_steps=1, guidance_scale=0.0),
    joined=False,
    licence="sai-nc-community",
    scheduler="EulerAncestral, trailing",
    note="Distilled: 1 to 4 steps, guidance 0. The autoencoder decodes in fp32 by itself.",
)
_SD1_5 = replace(
    _SDXL,
    name="sd1.5",
    models=("stable-diffusion-v1-5/stable-diffusion-v1-5",),
    pipelines=("StableDiffusionPipeline",),
    match=dict(unet=dict(sample_size=64, in_channels=4, cross_attention_dim=768)),
    arguments=dict(height=512, width=512, num_inference_steps=50, guidance_scale=7.5),
    parameters=dict(unet=860, text_encoder=123, safety_checker=304, vae=84),
    held=dict(unet=357),
    licence="creativeml-openrail-m",
    note="",
)

STABLE_DIFFUSION = Family(
    prefix="StableDiffusion",
    default_size="config",
    siblings=tuple(
        Sibling(task="image_to_image", source=f"{name}Pipeline", target=f"{name}Img2ImgPipeline")
        for name in ("StableDiffusion", "StableDiffusionXL")
    ),
    training={
        "StableDiffusionPipeline": TrainingInput(layout="image"),
        "StableDiffusionXLPipeline": TrainingInput(
            layout="image_normalised",
            unprompted={"guidance_scale": 2.0},  # the first call under guidance is that one: it may be zeros
        ),
    },
    presets=(
        _SDXL_TURBO,
        replace(
            _SDXL_TURBO,
            name="sd-turbo",
            models=("stabilityai/sd-turbo",),
            pipelines=("StableDiffusionPipeline",),
            match=dict(
                unet=dict(in_channels=4, cross_attention_dim=1024),
                scheduler=dict(timestep_spacing="trailing"),
            ),
            parameters=dict(unet=866, text_encoder=340, vae=84),
            held=dict(unet=359),
            scheduler="Euler, trailing",
            note="Distilled: 1 to 4 steps, guidance 0.",
        ),
        _SDXL,
        _SD1_5,
    ),
)

# Steps and guidance: the model card of each.
_SD3_5_LARGE = Preset(
    name="sd3.5-large",
    models=("stabilityai/stable-diffusion-3.5-large",),
    pipelines=("StableDiffusion3Pipeline", "StableDiffusion3ModularPipeline"),
    match=dict(transformer=dict(num_layers=38, in_channels=16)),
    arguments=dict(height=1024, width=1024, num_inference_steps=28, guidance_scale=3.5),
    parameters=dict(transformer=8146, text_encoder=124, text_encoder_2=695, text_encoder_3=4762, vae=84),
    held=dict(transformer=342, text_encoder_3=132),
    token=(1, 16, 16),
    width=2432,
    joined=True,
    licence="stabilityai-ai-community",
    scheduler="FlowMatchEuler",
    note="3.5 Large Turbo has the same configs and wants 4 steps and guidance 0: give them.",
)
STABLE_DIFFUSION_3 = Family(
    prefix="StableDiffusion3",
    default_size="config",
    sends=(),
    siblings=redrawn("StableDiffusion3"),
    training={"StableDiffusion3Pipeline": TrainingInput(layout="image_shifted")},
    presets=(
        _SD3_5_LARGE,
        replace(
            _SD3_5_LARGE,
            name="sd3-medium",
            models=("stabilityai/stable-diffusion-3-medium-diffusers",),
            match=dict(transformer=dict(num_layers=24, pos_embed_max_size=192)),
            arguments={**_SD3_5_LARGE.arguments, "guidance_scale": 7.0},
            dtype="fp16",
            parameters={**_SD3_5_LARGE.parameters, "transformer": 2085},
            held=dict(transformer=161, text_encoder_3=132),
            width=1536,
            note="",
        ),
    ),
)

# Over Stable Diffusion 1.5.
LATENT_CONSISTENCY = Family(
    prefix="LatentConsistencyModel",
    default_size="config",
    reads_guidance_once=True,
    presets=(
        # The docstring of diffusers' LatentConsistencyModelPipeline.
        replace(
            _SD1_5,
            name="lcm-dreamshaper-v7",
            models=("SimianLuo/LCM_Dreamshaper_v7",),
            pipelines=("LatentConsistencyModelPipeline",),
            match=dict(unet=dict(cross_attention_dim=768, time_cond_proj_dim=256)),
            arguments=dict(height=768, width=768, num_inference_steps=4, guidance_scale=8.0),
            joined=False,
            licence="mit",
            scheduler="LCM",
            note="Guidance is an input of its network.",
        ),
    ),
)

# A motion module for Stable Diffusion 1.5.
ANIMATEDIFF = Family(
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
    presets=(
        Preset(
            name="animatediff",
            pipelines=("AnimateDiffPipeline",),
            match=dict(
                unet=dict(cross_attention_dim=768),
                motion_adapter=dict(motion_max_seq_length=32, block_out_channels=[320, 640, 1280, 1280]),
            ),
            arguments=dict(height=512, width=512, num_frames=16, num_inference_steps=50, guidance_scale=7.5),
            dtype="fp16",
            parameters=dict(unet=1313, motion_adapter=453, text_encoder=123, vae=84),
            held=dict(unet=502),
            token=(1, 8, 8),
            width=320,
            joined=True,
            licence="the adapter's and the base model's",
            scheduler="DDIM, beta_schedule linear",
            note=(
                "Not one model of the hub: make a folder with `AnimateDiffPipeline.from_pretrained(BASE, "
                'motion_adapter=MotionAdapter.from_pretrained("guoyww/animatediff-motion-adapter-v1-5-2")).save_pretrained(FOLDER)`.'
            ),
        ),
    ),
)

# `fps` of its call is what the motion is conditioned on, and its native rate.
_XT = Preset(
    name="svd-xt",
    models=("stabilityai/stable-video-diffusion-img2vid-xt",),
    inputs=("image",),
    pipelines=("StableVideoDiffusionPipeline",),
    match=dict(unet=dict(num_frames=25, cross_attention_dim=1024)),
    arguments=dict(height=576, width=1024, num_frames=25, num_inference_steps=25),
    dtype="fp16",
    parameters=dict(unet=1525, image_encoder=632, vae=98),
    held=dict(unet=680),
    token=(1, 8, 8),
    width=320,
    joined=True,
    licence="stable-video-diffusion-community",
    scheduler="Euler",
    note=(
        "Guidance rises over the frames, from `min_guidance_scale` 1 to `max_guidance_scale` 3. "
        "No other scheduler than Euler."
    ),
)
STABLE_VIDEO_DIFFUSION = Family(
    prefix="StableVideoDiffusion",
    frame_factor=0,
    fps=7,
    presets=(
        _XT,
        replace(
            _XT,
            name="svd",
            models=("stabilityai/stable-video-diffusion-img2vid",),
            match=dict(unet=dict(num_frames=14, cross_attention_dim=1024)),
            arguments={**_XT.arguments, "num_frames": 14},
        ),
    ),
)
