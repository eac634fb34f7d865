"""From the keys of a video DC-AE's checkpoint to those of AutoencoderDCVideo: renamed, nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from framefleet.pipeline.conversion.plan import Origin

Shapes = Mapping[str, Tensor]  # tensors without values

_RENAMED = (  # tried in order, each on what the one before left
    (r"^encoder\.project_in\.conv\.", "encoder.conv_in."),
    (r"^encoder\.project_out\.main\.op_list\.0\.conv\.", "encoder.conv_out."),
    (r"^decoder\.project_in\.main\.conv\.", "decoder.conv_in."),
    (r"^decoder\.project_out\.op_list\.0\.", "decoder.norm_out."),
    (r"^decoder\.project_out\.op_list\.2\.conv\.", "decoder.conv_out."),
    (r"^encoder\.stages\.(\d+)\.op_list\.", r"encoder.down_blocks.\1."),
    (r"^decoder\.stages\.(\d+)\.op_list\.", r"decoder.up_blocks.\1."),
    (r"\.context_module\.main\.qkv\.conv\.", ".attn.to_qkv."),
    (r"\.context_module\.main\.aggreg\.(\d+)\.0\.", r".attn.to_qkv_multiscale.\1.proj_in."),
    (r"\.context_module\.main\.aggreg\.(\d+)\.1\.", r".attn.to_qkv_multiscale.\1.proj_out."),
    (r"\.context_module\.main\.proj\.conv\.", ".attn.to_out."),
    (r"\.context_module\.main\.proj\.norm\.", ".attn.norm_out."),
    (r"\.local_module\.main\.(inverted|depth|point)_conv\.conv\.", r".conv_out.conv_\1."),
    (r"\.local_module\.main\.point_conv\.norm\.", ".conv_out.norm."),
    (r"\.main\.(conv[12])\.conv\.", r".\1."),
    (r"\.main\.conv2\.norm\.", ".norm."),
    (r"\.main\.conv\.conv\.", ".conv."),  # of an upsampling block
    (r"\.main\.conv\.", ".conv."),  # of a downsampling one
)


def is_dc_autoencoder(shapes: Shapes) -> bool:
    return {"encoder.project_in.conv.weight", "decoder.project_in.main.conv.weight"} <= set(shapes)


def dc_origins(shapes: Shapes, prefix: str = "") -> dict[str, Origin]:
    """Return where each tensor of the AutoencoderDCVideo comes from. prefix: of names in the checkpoint."""
    return {renamed(key): Origin(name=f"{prefix}{key}") for key in shapes}


def renamed(key: str) -> str:
    """Return our name of a tensor."""
    for pattern, name in _RENAMED:
        key = re.sub(pattern, name, key)
    return key


def dc_config(shapes: Shapes) -> dict[str, Any]:
    """Return the config of the AutoencoderDCVideo, read from the shapes."""
    ours = {renamed(key): tuple(tensor.shape) for key, tensor in shapes.items()}
    encoder, decoder = _levels(ours, "encoder.down_blocks"), _levels(ours, "decoder.up_blocks")
    scales = [shape for key, shape in ours.items() if key.endswith("to_qkv_multiscale.0.proj_out.weight")]
    return {
        "in_channels": ours["encoder.conv_in.weight"][1],
        "latent_channels": ours["encoder.conv_out.weight"][0],
        "attention_head_dim": scales[0][1] if scales else 32,
        "encoder_block_types": [kind for kind, _, _ in encoder],
        "decoder_block_types": [kind for kind, _, _ in decoder],
        "encoder_block_out_channels": [width for _, width, _ in encoder],
        "decoder_block_out_channels": [width for _, width, _ in decoder],
        "encoder_layers_per_block": [depth for _, _, depth in encoder],
        "decoder_layers_per_block": [depth for _, _, depth in decoder],
    }


def _levels(ours: Mapping[str, tuple[int, ...]], prefix: str) -> list[tuple[str, int, int]]:
    """Return (block type, width, depth) of each level."""
    found: dict[int, dict[str, tuple[str, int]]] = {}
    for key, shape in ours.items():
        if block := re.match(rf"{re.escape(prefix)}\.(\d+)\.(\d+)\.(conv1|attn\.to_out)\.weight", key):
            kind = "ResBlock" if block[3] == "conv1" else "EfficientViTBlock"
            found.setdefault(int(block[1]), {})[block[2]] = (kind, shape[0])
    return [(*next(iter(blocks.values())), len(blocks)) for _, blocks in sorted(found.items())]
