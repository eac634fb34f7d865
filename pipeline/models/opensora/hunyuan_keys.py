"""From the keys of HunyuanVideo's autoencoder to the config of diffusers' class, which names them alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]


def is_hunyuan_autoencoder(shapes: Shapes) -> bool:
    return {"encoder.conv_in.conv.weight", "post_quant_conv.weight"} <= set(shapes)


def hunyuan_config(shapes: Shapes) -> dict[str, Any]:
    """Return what the shapes say of the config; the number of groups of its norms is not among that."""
    widths: dict[int, int] = {}
    layers = 0
    for key, shape in shapes.items():
        if found := re.match(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.conv\.weight", key):
            widths[int(found[1])] = shape[0]
            layers = max(layers, int(found[2]) + 1)
    return {
        "latent_channels": shapes["post_quant_conv.weight"][0],
        "block_out_channels": [width for _, width in sorted(widths.items())],
        "layers_per_block": layers,
        "down_block_types": ["HunyuanVideoDownBlock3D"] * len(widths),
        "up_block_types": ["HunyuanVideoUpBlock3D"] * len(widths),
    }
