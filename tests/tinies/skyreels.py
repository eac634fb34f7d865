"""Tiny SkyReels V2 pipelines: from text, from a picture, and by diffusion forcing, which goes on in turns."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.encoders import IMAGE_WIDTH, TEXT_WIDTH, image_processor, projected_vision
from tests.tinies.table import FRAMES_5, FRAMES_9, TWO_LAYERS, Tinies, of
from tests.tinies.wan import CHANNELS, CONDITIONED, wan_parts


def skyreels_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.SkyReelsV2ImageToVideoPipeline(
        **_parts(in_channels=CONDITIONED, image_dim=IMAGE_WIDTH, added_kv_proj_dim=32),
        image_encoder=projected_vision(image_size=32, patch_size=8),
        image_processor=image_processor(image_size=32),
    )


def _parts(**settings: Any) -> dict[str, Any]:
    return wan_parts() | {"transformer": _transformer(**settings)}


def _forced() -> dict[str, Any]:
    return _parts(inject_sample_info=True)  # the rate is told to the network


def _transformer(**settings: Any) -> diffusers.SkyReelsV2Transformer3DModel:
    given: dict[str, Any] = {"in_channels": CHANNELS}
    return diffusers.SkyReelsV2Transformer3DModel(
        **TWO_LAYERS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=32,
        ffn_dim=64,
        **{**given, **settings},
    )


_LONGER = FRAMES_9 | {"num_frames": 17, "base_num_frames": 9, "overlap_history": 5}
TINIES: Tinies = {
    "skyreels": of("SkyReelsV2Pipeline", _parts, FRAMES_5),
    "skyreels_i2v": (skyreels_i2v, FRAMES_5 | {"max_sequence_length": 512}, ("image",)),
    "skyreels_df": of("SkyReelsV2DiffusionForcingPipeline", _forced, FRAMES_9),
    "skyreels_df_i2v": of("SkyReelsV2DiffusionForcingImageToVideoPipeline", _forced, FRAMES_9, "image"),
    "skyreels_df_v2v": of("SkyReelsV2DiffusionForcingVideoToVideoPipeline", _forced, _LONGER, video=9),
}
