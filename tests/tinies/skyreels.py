"""Tiny SkyReels V2 pipelines: from text, from a picture, and by diffusion forcing, which goes on in turns."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.encoders import IMAGE_WIDTH, TEXT_WIDTH, image_processor, projected_vision
from tests.tinies.wan import CHANNELS, CONDITIONED, wan_parts


def skyreels() -> diffusers.DiffusionPipeline:
    return diffusers.SkyReelsV2Pipeline(**wan_parts(), transformer=_transformer())


def skyreels_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.SkyReelsV2ImageToVideoPipeline(
        **wan_parts(),
        transformer=_transformer(in_channels=CONDITIONED, image_dim=IMAGE_WIDTH, added_kv_proj_dim=32),
        image_encoder=projected_vision(image_size=32, patch_size=8),
        image_processor=image_processor(image_size=32),
    )


def skyreels_df() -> diffusers.DiffusionPipeline:
    return diffusers.SkyReelsV2DiffusionForcingPipeline(**wan_parts(), transformer=_transformer(**_FORCED))


def skyreels_df_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.SkyReelsV2DiffusionForcingImageToVideoPipeline(
        **wan_parts(), transformer=_transformer(**_FORCED)
    )


def skyreels_df_v2v() -> diffusers.DiffusionPipeline:
    return diffusers.SkyReelsV2DiffusionForcingVideoToVideoPipeline(
        **wan_parts(), transformer=_transformer(**_FORCED)
    )


_FORCED = {"inject_sample_info": True}  # the rate is told to the network


def _transformer(**settings: Any) -> diffusers.SkyReelsV2Transformer3DModel:
    given: dict[str, Any] = {"in_channels": CHANNELS}
    return diffusers.SkyReelsV2Transformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=32,
        ffn_dim=64,
        num_layers=2,
        **{**given, **settings},
    )
