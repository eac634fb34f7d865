"""From the keys of HunyuanVideo's autoencoder to the config of diffusers' class, which names them alike."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from framefleet.pipeline.conversion.plan import Origin

Shapes = Mapping[str, Tensor]  # tensors without values


def is_hunyuan_autoencoder(shapes: Shapes) -> bool:
    return {"encoder.conv_in.conv.weight", "post_quant_conv.weight"} <= set(shapes)


def hunyuan_origins(shapes: Shapes, prefix: str = "") -> dict[str, Origin]:
    """Return where each tensor of AutoencoderKLHunyuanVideo comes from."""
    return {key: Origin(name=f"{prefix}{key}") for key in shapes}


def hunyuan_config(shapes: Shapes) -> dict[str, Any]:
    """Return the config, read from the shapes, which do not tell the groups of norms: 32, where it fits."""
    widths: dict[int, int] = {}
    layers = 0
    for key, tensor in shapes.items():
        if found := re.match(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.conv\.weight", key):
            widths[int(found[1])] = tensor.shape[0]
            layers = max(layers, int(found[2]) + 1)
    return {
        "latent_channels": shapes["post_quant_conv.weight"].shape[0],
        "block_out_channels": [width for _, width in sorted(widths.items())],
        "layers_per_block": layers,
        "norm_num_groups": math.gcd(32, *widths.values()),
        "down_block_types": ["HunyuanVideoDownBlock3D"] * len(widths),
        "up_block_types": ["HunyuanVideoUpBlock3D"] * len(widths),
    }
