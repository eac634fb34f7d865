"""From the keys of HunyuanVideo's autoencoder to the config of diffusers' class, which names them alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from framefleet.pipeline.models.conversion.configs import count_below, size_of
from framefleet.pipeline.models.conversion.plan import Origin

_Shapes = Mapping[str, Tensor]  # tensors without values

_GROUPS = 32  # of norms in the released model, which no tensor tells


def is_hunyuan_autoencoder(shapes: _Shapes) -> bool:
    return any(re.match(r"(en|de)coder\.(down|up)_blocks\.\d+\..+\.conv\.weight$", name) for name in shapes)


def hunyuan_origins(names: Iterable[str], shapes: _Shapes, prefix: str = "") -> dict[str, Origin]:
    """Return where each tensor of AutoencoderKLHunyuanVideo comes from."""
    return {name: Origin(name=f"{prefix}{name}") for name in names}


def hunyuan_config(shapes: _Shapes) -> dict[str, Any]:
    """Return the config that the shapes tell; the groups of its norms where they can be the released ones."""
    levels = range(count_below(shapes, "encoder.down_blocks."))
    widths = [size_of(shapes, f"encoder.down_blocks.{i}.resnets.0.conv1.conv.weight", 5)[0] for i in levels]
    return {
        "latent_channels": size_of(shapes, "post_quant_conv.weight", 5)[0],
        "block_out_channels": widths,
        "layers_per_block": count_below(shapes, "encoder.down_blocks.0.resnets."),
        "norm_num_groups": _GROUPS if all(width % _GROUPS == 0 for width in widths) else None,
        "down_block_types": ["HunyuanVideoDownBlock3D"] * len(widths),
        "up_block_types": ["HunyuanVideoUpBlock3D"] * len(widths),
    }
