"""From the keys of a checkpoint of Open-Sora's autoencoders to our configs and names of tensors.

A video DC-AE becomes AutoencoderDCVideo: renamed, nothing else. HunyuanVideo's is named as in diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from framefleet.plugins.ports.conversion.plan import Origin, count_below, renamed, size_of

_Shapes = Mapping[str, Tensor]  # tensors without values

_ORIGINAL = (  # of our names; tried in order, each on what the one before left
    (r"^encoder\.conv_in\.", "encoder.project_in.conv."),
    (r"^encoder\.conv_out\.", "encoder.project_out.main.op_list.0.conv."),
    (r"^decoder\.conv_in\.", "decoder.project_in.main.conv."),
    (r"^decoder\.norm_out\.", "decoder.project_out.op_list.0."),
    (r"^decoder\.conv_out\.", "decoder.project_out.op_list.2.conv."),
    (r"^encoder\.down_blocks\.(\d+)\.", r"encoder.stages.\1.op_list."),
    (r"^decoder\.up_blocks\.(\d+)\.", r"decoder.stages.\1.op_list."),
    (r"\.attn\.to_qkv\.", ".context_module.main.qkv.conv."),
    (r"\.attn\.to_qkv_multiscale\.(\d+)\.proj_in\.", r".context_module.main.aggreg.\1.0."),
    (r"\.attn\.to_qkv_multiscale\.(\d+)\.proj_out\.", r".context_module.main.aggreg.\1.1."),
    (r"\.attn\.to_out\.", ".context_module.main.proj.conv."),
    (r"\.attn\.norm_out\.", ".context_module.main.proj.norm."),
    (r"\.conv_out\.conv_(inverted|depth|point)\.", r".local_module.main.\1_conv.conv."),
    (r"\.conv_out\.norm\.", ".local_module.main.point_conv.norm."),
    (r"\.(conv[12])\.(weight|bias)$", r".main.\1.conv.\2"),
    (r"(op_list\.\d+)\.norm\.", r"\1.main.conv2.norm."),
    (r"^(encoder\.stages\.\d+\.op_list\.\d+)\.conv\.", r"\1.main.conv."),  # of a downsampling block
    (r"^(decoder\.stages\.\d+\.op_list\.\d+)\.conv\.", r"\1.main.conv.conv."),  # of an upsampling one
)
# What tells a block's kind and width.
_LAST = {"main.conv1.conv": "ResBlock", "context_module.main.proj.conv": "EfficientViTBlock"}

_GROUPS = 32  # of norms in the released model, which no tensor tells


def is_dc_autoencoder(shapes: _Shapes) -> bool:
    return any(re.match(r"(en|de)coder\.stages\.\d+\.op_list\.", name) for name in shapes)


def dc_origins(names: Iterable[str], shapes: _Shapes) -> dict[str, Origin]:
    """Return where each tensor of the AutoencoderDCVideo comes from."""
    return {name: Origin(name=renamed(name, _ORIGINAL)) for name in names}


def dc_config(shapes: _Shapes) -> dict[str, Any]:
    """Return the config of the AutoencoderDCVideo, read from the shapes."""
    encoder, decoder = _levels(shapes, "encoder"), _levels(shapes, "decoder")
    groups = [name for name in shapes if name.endswith(".context_module.main.aggreg.0.1.weight")]
    return {
        "in_channels": size_of(shapes, "encoder.project_in.conv.weight", 5)[1],
        "latent_channels": size_of(shapes, "encoder.project_out.main.op_list.0.conv.weight", 5)[0],
        "attention_head_dim": size_of(shapes, groups[0], 5)[1] if groups else 32,
        "encoder_block_types": [kind for kind, _, _ in encoder],
        "decoder_block_types": [kind for kind, _, _ in decoder],
        "encoder_block_out_channels": [width for _, width, _ in encoder],
        "decoder_block_out_channels": [width for _, width, _ in decoder],
        "encoder_layers_per_block": [depth for _, _, depth in encoder],
        "decoder_layers_per_block": [depth for _, _, depth in decoder],
        "temporal_compression_ratio": 4,  # strides, which no tensor tells
    }


def _levels(shapes: _Shapes, half: str) -> list[tuple[str, int, int]]:
    """Return (block type, width, depth) of each level. Raises KeyError for one without blocks."""
    blocks_by_level: list[dict[str, tuple[str, int]]] = [
        {} for _ in range(count_below(shapes, f"{half}.stages."))
    ]
    for name, tensor in shapes.items():
        block = re.match(rf"{half}\.stages\.(\d+)\.op_list\.(\d+)\.(.+)\.weight$", name)
        if block and block[3] in _LAST:
            blocks_by_level[int(block[1])][block[2]] = (_LAST[block[3]], tensor.shape[0])
    for level, blocks in enumerate(blocks_by_level):
        if not blocks:
            raise KeyError(f"{half}.stages.{level}.op_list.0.main.conv1.conv.weight")
    return [(*next(iter(blocks.values())), len(blocks)) for blocks in blocks_by_level]


def is_hunyuan_autoencoder(shapes: _Shapes) -> bool:
    return any(re.match(r"(en|de)coder\.(down|up)_blocks\.\d+\..+\.conv\.weight$", name) for name in shapes)


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
