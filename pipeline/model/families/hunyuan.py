"""HunyuanVideo and FramePack, HunyuanVideo 1.5 and HunyuanImage 2.1."""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset, TrainingInput

HUNYUANVIDEO = Family(
    prefix="HunyuanVideo",
    default_size="config",
    fps=24,
    sends=("sigmas",),
    training={"HunyuanVideoPipeline": TrainingInput(layout="scaled")},
    presets=(
        # Precision: the docstring of diffusers' HunyuanVideoPipeline.
        Preset(
            name="hunyuanvideo",
            models=("hunyuanvideo-community/HunyuanVideo",),
            pipelines=("HunyuanVideoPipeline",),
            match=dict(transformer=dict(num_layers=20, num_single_layers=40, in_channels=16)),
            arguments=dict(
                height=720, width=1280, num_frames=129, num_inference_steps=50, guidance_scale=6.0
            ),
            dtype="fp16",
            dtypes=dict(transformer="bf16"),
            parameters=dict(transformer=12821, text_encoder=7505, text_encoder_2=123, vae=246),
            held=dict(transformer=701, text_encoder=526),
            token=(4, 16, 16),
            width=3072,
            licence="tencent-hunyuan-community",
            scheduler="FlowMatchEuler, shift 7",
        ),
        # Values of the call, rate and precision: the docstring of diffusers' HunyuanVideoFramepackPipeline.
        # Its 91 frames are no 4k + 1, and as many windows as 93. Network: the defaults of its class, with the
        # layers for pictures and clean frames.
        Preset(
            name="framepack",
            inputs=("image",),
            pipelines=("HunyuanVideoFramepackPipeline",),
            match=dict(transformer=dict(num_layers=20, num_single_layers=40, has_clean_x_embedder=True)),
            arguments=dict(height=832, width=480, num_frames=93, num_inference_steps=30, guidance_scale=9.0),
            fps=30,
            dtype="fp16",
            dtypes=dict(transformer="bf16"),
            parameters=dict(
                transformer=12874, text_encoder=7505, text_encoder_2=123, image_encoder=428, vae=246
            ),
            held=dict(transformer=754, text_encoder=526),
            token=(4, 16, 16),
            width=3072,
            licence="tencent-hunyuan-community; the network: see its card",
            scheduler="FlowMatchEuler, shift 7",
            note="Put together: lllyasviel/FramePackI2V_HY in hunyuanvideo-community/HunyuanVideo, and the "
            "image encoder of lllyasviel/flux_redux_bfl.",
        ),
    ),
)

# Configs, shifts and guidance: diffusers' script convert_hunyuan_video1_5_to_diffusers. Sizes: what the
# pipeline makes of `target_size`. Steps and precision: the docstring of HunyuanVideo15Pipeline; the rate:
# that of HunyuanVideo15ImageToVideoPipeline.
_480P = Preset(
    name="hunyuanvideo-1.5-480p-t2v",
    models=("hunyuanvideo-community/HunyuanVideo-1.5-480p_t2v",),
    pipelines=("HunyuanVideo15Pipeline",),
    match=dict(transformer=dict(num_layers=54, target_size=640)),
    arguments=dict(height=480, width=848, num_frames=121, num_inference_steps=50),
    dtype="fp16",
    parameters=dict(transformer=8327, text_encoder=7071, text_encoder_2=218, vae=1261),
    held=dict(transformer=321, text_encoder=545),
    token=(4, 16, 16),
    width=2048,
    licence="tencent-hunyuan-community",
    scheduler="FlowMatchEuler, shift 5",
    note="Guidance, 6, is the folder's: `guider/`. Distilled ones have 1.",
)
# Guided by an object that the folder holds.
HUNYUANVIDEO_1_5 = Family(
    prefix="HunyuanVideo15",
    size_base=16,
    fps=24,
    sends=("sigmas",),
    presets=(
        _480P,
        replace(
            _480P,
            name="hunyuanvideo-1.5-720p-t2v",
            models=("hunyuanvideo-community/HunyuanVideo-1.5-720p_t2v",),
            match=dict(transformer=dict(num_layers=54, target_size=960)),
            arguments={**_480P.arguments, "height": 720, "width": 1280},
            scheduler="FlowMatchEuler, shift 9",
        ),
    ),
)

# Values of the calls: diffusers' documentation of HunyuanImage 2.1. Configs: its script
# convert_hunyuan_image_to_diffusers; the second encoder is ByT5 small's, as HunyuanVideo 1.5's.
_BASE = Preset(
    name="hunyuanimage-2.1",
    models=("hunyuanvideo-community/HunyuanImage-2.1-Diffusers",),
    pipelines=("HunyuanImagePipeline",),
    match=dict(transformer=dict(num_layers=20, num_attention_heads=28, guidance_embeds=False)),
    arguments=dict(height=2048, width=2048, num_inference_steps=50),
    parameters=dict(transformer=17426, text_encoder=8292, text_encoder_2=218, vae=406),
    held=dict(transformer=929, text_encoder=545),
    token=(1, 32, 32),
    width=3584,
    licence="tencent-hunyuan-community",
    note="Guidance is the folder's: `guider/`.",
)
HUNYUAN_IMAGE = Family(
    prefix="HunyuanImage",
    sends=("sigmas",),
    presets=(
        _BASE,
        replace(
            _BASE,
            name="hunyuanimage-2.1-distilled",
            models=("hunyuanvideo-community/HunyuanImage-2.1-Distilled-Diffusers",),
            match=dict(transformer=dict(num_layers=20, num_attention_heads=28, guidance_embeds=True)),
            arguments=dict(height=2048, width=2048, num_inference_steps=8, distilled_guidance_scale=3.25),
            parameters={**_BASE.parameters, "transformer": 17453},
            held={**_BASE.held, "transformer": 957},
            note="Distilled: guidance is `distilled_guidance_scale`.",
        ),
    ),
)
