"""Tiny Motif-Video pipelines: from text, and from a picture."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import SiglipImageProcessor, T5Gemma2Encoder, T5Gemma2EncoderConfig, T5Gemma2TextConfig

from tests.tinies.encoders import IMAGE_WIDTH, TEXT_WIDTH, language_model
from tests.tinies.table import ONE_OF_EACH
from tests.tinies.wan import CHANNELS, wan_parts


def motif() -> diffusers.DiffusionPipeline:
    return diffusers.MotifVideoPipeline(**_parts(), transformer=_transformer())


def motif_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.MotifVideoImage2VideoPipeline(
        **_parts(),
        transformer=_transformer(image_embed_dim=IMAGE_WIDTH),
        feature_extractor=SiglipImageProcessor(size={"height": 32, "width": 32}),
    )


def _parts() -> dict[str, Any]:
    # The rate of dropout transformers' encoder reads and does not set.
    text = T5Gemma2TextConfig(**language_model(2, head_dim=16, dropout_rate=0.0))
    sight = {
        "hidden_size": IMAGE_WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = T5Gemma2EncoderConfig(text_config=text, vision_config=sight, mm_tokens_per_image=4)
    return wan_parts() | {
        "text_encoder": T5Gemma2Encoder(config),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        "guider": diffusers.AdaptiveProjectedGuidance(guidance_scale=8.0),
    }


def _transformer(**settings: Any) -> diffusers.MotifVideoTransformer3DModel:
    return diffusers.MotifVideoTransformer3DModel(
        in_channels=2 * CHANNELS + 1,  # the noise, a first frame, and where it is
        out_channels=CHANNELS,
        **ONE_OF_EACH,
        text_embed_dim=TEXT_WIDTH,
        rope_axes_dim=(4, 6, 6),
        **settings,
    )
