"""Transformers that render images, of authors with a family or two."""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset, redrawn

AURA_FLOW = Family(
    prefix="AuraFlow",
    presets=(
        # The call's defaults; the dtype of its docstring.
        Preset(
            name="auraflow",
            models=("fal/AuraFlow",),
            pipelines=("AuraFlowPipeline",),
            match=dict(transformer=dict(num_mmdit_layers=4, num_single_dit_layers=32)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=3.5),
            dtype="fp16",
            parameters=dict(transformer=6859, text_encoder=1222, vae=84),
            held=dict(transformer=404, text_encoder=66),
            token=(1, 16, 16),
            width=3072,
            joined=True,
            licence="apache-2.0",
            scheduler="FlowMatchEuler",
        ),
    ),
)

CHROMA = Family(
    prefix="Chroma",
    default_size=128,
    siblings=redrawn("Chroma"),
    presets=(
        # The call's defaults.
        Preset(
            name="chroma",
            models=("lodestones/Chroma1-HD",),
            inputs=("text", "image"),
            pipelines=("ChromaPipeline", "ChromaImg2ImgPipeline"),
            match=dict(transformer=dict(num_layers=19, num_single_layers=38)),
            arguments=dict(height=1024, width=1024, num_inference_steps=35, guidance_scale=5.0),
            parameters=dict(transformer=8900, text_encoder=4762, vae=84),
            held=dict(transformer=256, text_encoder=132),
            token=(1, 16, 16),
            width=3072,
            licence="apache-2.0",
            scheduler="FlowMatchEuler",
        ),
    ),
)

ERNIE_IMAGE = Family(
    prefix="ErnieImage",
    presets=(
        # Values of the call: diffusers' documentation of ERNIE-Image. Configs: the hub's, as the port
        # ernie-image-mlx quotes them; of the text encoder the language half is counted. Licence: its pages.
        Preset(
            name="ernie-image",
            models=("baidu/ERNIE-Image",),
            pipelines=("ErnieImagePipeline",),
            match=dict(transformer=dict(hidden_size=4096, num_layers=36)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=4.0),
            parameters=dict(transformer=8033, text_encoder=3429, vae=84),
            held=dict(transformer=299, text_encoder=403),
            token=(1, 16, 16),
            width=4096,
            licence="apache-2.0",
            note="Turbo takes 8 steps and guidance 1: give them. Its prompt enhancer, 3.4 billion more, "
            "is on unless `use_pe` is false.",
        ),
    ),
)

GLM_IMAGE = Family(
    prefix="GlmImage",
    default_size=128,
    presets=(
        # The call's defaults. Network: SGLang's GlmImageArchConfig; the language model: the defaults of
        # transformers' GlmImageConfig.
        Preset(
            name="glm-image",
            models=("zai-org/GLM-Image",),
            pipelines=("GlmImagePipeline",),
            match=dict(transformer=dict(num_layers=30, prior_vq_quantizer_codebook_size=16384)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=1.5),
            parameters=dict(transformer=6927, vision_language_encoder=10114, text_encoder=218, vae=84),
            held=dict(transformer=356, vision_language_encoder=688),
            token=(1, 16, 16),
            width=4096,
            licence="see its card",
            note="A language model draws the picture's tokens first, one by one. Texts in it: in quotes.",
        ),
    ),
)

HIDREAM = Family(
    prefix="HiDream",
    presets=(
        # Values of the call: the docstring of diffusers' HiDreamImagePipeline; of Dev and Fast: ComfyUI's
        # documentation. Config: the script that converted it. Licence: github.com/HiDream-ai/HiDream-I1.
        Preset(
            name="hidream-i1",
            models=("HiDream-ai/HiDream-I1-Full",),
            pipelines=("HiDreamImagePipeline",),
            match=dict(transformer=dict(num_layers=16, num_single_layers=32, num_attention_heads=20)),
            arguments=dict(height=1024, width=1024, num_inference_steps=50, guidance_scale=5.0),
            parameters=dict(
                transformer=17106,
                text_encoder=124,
                text_encoder_2=695,
                text_encoder_3=4762,
                text_encoder_4=8030,
                vae=84,
            ),
            held=dict(transformer=457, text_encoder_3=132, text_encoder_4=525),
            token=(1, 16, 16),
            width=2560,
            licence="mit; the Llama 3.1 in it: its own",
            note="Dev takes 28 steps, Fast 16, both guidance 0: give them. Its folder lacks Llama 3.1 8B.",
        ),
    ),
)

_KREA2 = Preset(
    name="krea-2",
    pipelines=("Krea2Pipeline",),
    match=dict(transformer=dict(num_layers=28, num_attention_heads=48)),
    arguments=dict(height=1024, width=1024, num_inference_steps=28, guidance_scale=4.5),
    parameters=dict(transformer=12820, text_encoder=4438, vae=127),
    held=dict(transformer=754, text_encoder=389),
    token=(1, 16, 16),
    width=6144,
    licence="krea-2-community",
    scheduler="FlowMatchEuler",
    note="Guidance is one less than in other models: 0 is off.",
)
KREA2 = Family(
    prefix="Krea2",
    presets=(
        # Diffusers' documentation of Krea 2. Its guidance is one less than the usual: 0 is off.
        replace(
            _KREA2,
            name="krea-2-turbo",
            models=("krea/Krea-2-Turbo",),
            match={**_KREA2.match, "index": dict(is_distilled=True)},
            arguments={**_KREA2.arguments, "num_inference_steps": 8, "guidance_scale": 0.0},
            note="Distilled: guidance 0.",
        ),
        _KREA2,
    ),
)

LUMINA2 = Family(
    prefix="Lumina2",
    presets=(
        # The call's defaults.
        Preset(
            name="lumina-image-2",
            models=("Alpha-VLLM/Lumina-Image-2.0",),
            pipelines=("Lumina2Pipeline",),
            match=dict(transformer=dict(num_layers=26, hidden_size=2304)),
            arguments=dict(height=1024, width=1024, num_inference_steps=30, guidance_scale=4.0),
            parameters=dict(transformer=2610, text_encoder=2614, vae=84),
            held=dict(transformer=97, text_encoder=590),
            token=(1, 16, 16),
            width=2304,
            licence="apache-2.0",
            scheduler="FlowMatchEuler",
        ),
    ),
)

PIXART = Family(
    prefix="PixArt",
    presets=(
        # The call's defaults; the dtype of its docstring.
        Preset(
            name="pixart-sigma-xl-1024",
            models=("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",),
            pipelines=("PixArtSigmaPipeline",),
            match=dict(transformer=dict(num_layers=28, sample_size=128)),
            arguments=dict(height=1024, width=1024, num_inference_steps=20, guidance_scale=4.5),
            dtype="fp16",
            parameters=dict(transformer=611, text_encoder=4762, vae=84),
            held=dict(transformer=37, text_encoder=132),
            token=(1, 16, 16),
            width=1152,
            joined=True,
            licence="openrail++",
        ),
    ),
)

Z_IMAGE = Family(
    prefix="ZImage",
    siblings=redrawn("ZImage"),
    presets=(
        # Distinguished from Z-Image by its scheduler's shift. The docstring of diffusers' ZImagePipeline.
        Preset(
            name="z-image-turbo",
            models=("Tongyi-MAI/Z-Image-Turbo",),
            inputs=("text", "image"),
            pipelines=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
            match=dict(transformer=dict(n_layers=30, cap_feat_dim=2560), scheduler=dict(shift=3.0)),
            arguments=dict(height=1024, width=1024, num_inference_steps=8, guidance_scale=0.0),
            parameters=dict(transformer=6155, text_encoder=4022, vae=84),
            held=dict(transformer=193, text_encoder=389),
            token=(1, 16, 16),
            width=3840,
            licence="apache-2.0",
            scheduler="FlowMatchEuler, shift 3",
            note="Distilled: guidance 0. An image to start from must have the size that is rendered.",
        ),
    ),
)
