"""Tiny Helios pipelines, which render chunk after chunk: at one size, and up a pyramid of sizes."""

from __future__ import annotations

import diffusers

from tests.tinies.encoders import TEXT_WIDTH
from tests.tinies.table import TWO_LAYERS
from tests.tinies.wan import CHANNELS, wan_parts


def helios() -> diffusers.DiffusionPipeline:
    scheduler = diffusers.HeliosScheduler(stages=1, stage_range=[0, 1], use_dynamic_shifting=True)
    return diffusers.HeliosPipeline(**wan_parts() | {"scheduler": scheduler}, transformer=_transformer())


def helios_pyramid() -> diffusers.DiffusionPipeline:
    # With diffusers' own gamma, 1/3, the noise's covariance has no Cholesky factor on a CPU.
    parts = wan_parts() | {"scheduler": diffusers.HeliosDMDScheduler(gamma=0.3)}
    return diffusers.HeliosPyramidPipeline(**parts, transformer=_transformer(), is_distilled=True)


def _transformer() -> diffusers.HeliosTransformer3DModel:
    return diffusers.HeliosTransformer3DModel(
        **TWO_LAYERS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=32,
        ffn_dim=64,
        rope_dim=(8, 4, 4),
    )
