"""Tiny pipelines of what grew from Wan: AnyFlow, and ChronoEdit."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.tinies.encoders import IMAGE_WIDTH, image_processor, vision
from tests.tinies.wan import CONDITIONED, network_sizes, wan_parts


def anyflow() -> diffusers.DiffusionPipeline:
    return diffusers.AnyFlowPipeline(
        **_flow_map_parts(), transformer=diffusers.AnyFlowTransformer3DModel(**network_sizes())
    )


def anyflow_far() -> diffusers.DiffusionPipeline:
    """Renders chunk after chunk: the first of one latent frame, then of the next two."""
    transformer = diffusers.AnyFlowFARTransformer3DModel(
        **network_sizes(), chunk_partition=(1, 2), full_chunk_limit=2
    )
    return diffusers.AnyFlowFARPipeline(**_flow_map_parts(), transformer=transformer)


def chronoedit() -> diffusers.DiffusionPipeline:
    """An image edited as the end of a clip that begins with it."""
    transformer = diffusers.ChronoEditTransformer3DModel(
        **network_sizes(in_channels=CONDITIONED), image_dim=IMAGE_WIDTH, added_kv_proj_dim=32
    )
    parts = wan_parts() | {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)}
    return diffusers.ChronoEditPipeline(
        **parts,
        transformer=transformer,
        image_encoder=vision(image_size=32, patch_size=8),
        image_processor=image_processor(image_size=32),
    )


def _flow_map_parts() -> dict[str, Any]:
    return wan_parts() | {"scheduler": diffusers.FlowMapEulerDiscreteScheduler(shift=5.0)}
