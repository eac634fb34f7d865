"""Qwen-Image, its editing kind, and 2.1."""

from dataclasses import replace

from framefleet.pipeline.model.families.family import Family, Preset, redrawn

# The call's defaults.
_QWEN_IMAGE = Preset(
    name="qwen-image",
    models=("Qwen/Qwen-Image",),
    inputs=("text", "image"),
    pipelines=("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
    match=dict(transformer=dict(num_layers=60, num_attention_heads=24)),
    arguments=dict(height=1024, width=1024, num_inference_steps=50, true_cfg_scale=4.0),
    parameters=dict(transformer=20430, text_encoder=8292, vae=127),
    held=dict(transformer=380, text_encoder=545),
    token=(1, 16, 16),
    width=3072,
    licence="apache-2.0",
    scheduler="FlowMatchEuler, dynamic shift",
    note="Guidance is `true_cfg_scale`, and only with a `negative_prompt`, which may be a space.",
)

QWEN_IMAGE = Family(
    prefix="QwenImage",
    default_size=128,
    siblings=redrawn("QwenImage"),
    presets=(
        _QWEN_IMAGE,
        # The calls' defaults, and their docstrings. Network and autoencoder are Qwen-Image's.
        replace(
            _QWEN_IMAGE,
            name="qwen-image-edit",
            models=("Qwen/Qwen-Image-Edit", "Qwen/Qwen-Image-Edit-2509", "Qwen/Qwen-Image-Edit-2511"),
            pipelines=("QwenImageEditPipeline", "QwenImageEditPlusPipeline"),
            arguments=dict(num_inference_steps=50, true_cfg_scale=4.0),
            note="Sizes are the picture's, at a megapixel. Guidance is `true_cfg_scale`, and only with a "
            "`negative_prompt`, which may be a space.",
        ),
    ),
)

QWEN_IMAGE_2_1 = Family(
    prefix="QwenImage21",
    presets=(
        # The call's defaults. Network and autoencoder: the defaults of their classes, which are the hub's
        # configs, as the notes of libwaifu list them, and the licence; the text encoder is Qwen3-VL 8B.
        Preset(
            name="qwen-image-2.1",
            models=("Qwen/Qwen-Image-2.1",),
            inputs=("text", "image"),
            pipelines=("QwenImage21Pipeline",),
            match=dict(transformer=dict(num_layers=32, num_attention_heads=32, in_channels=64)),
            arguments=dict(height=1024, width=1024, num_inference_steps=40, true_cfg_scale=1.0),
            parameters=dict(transformer=7115, text_encoder=8767, vae=338),
            held=dict(transformer=287, text_encoder=622),
            token=(1, 16, 16),
            width=4096,
            licence="qwen-research",
            scheduler="FlowMatchEuler, dynamic shift",
            note="Pictures have an alpha: png. Made for no guidance.",
        ),
    ),
)
