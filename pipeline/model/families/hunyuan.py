"""HunyuanVideo, from text, and FramePack, from an image."""

from __future__ import annotations

from framefleet.pipeline.model.families.family import Family, TrainingInput
from framefleet.pipeline.model.families.preset import Preset

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
            inputs=("text",),
            pipelines=("HunyuanVideoPipeline",),
            match=dict(transformer=dict(num_layers=20, num_single_layers=40, in_channels=16)),
            arguments=dict(
                height=720, width=1280, num_frames=129, num_inference_steps=50, guidance_scale=6.0
            ),
            fps=24,
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
            models=(),
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
