"""From the names and shapes of the other parts of an original checkpoint to configs and origins of ours.

The autoencoder of Stable Diffusion, the two towers of open_clip's ViT-H-14, the projector of image tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from framefleet.pipeline.conversion.plan import Origin

Shapes = Mapping[str, Tensor]
Origins = dict[str, Origin]

_CLIP_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_CLIP_TEXT = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_CLIP_VISION = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",  # as transformers spells it
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_VAE = [
    (r"^(encoder|decoder)\.mid\.block_([12])\.", lambda m: f"{m[1]}.mid_block.resnets.{int(m[2]) - 1}."),
    (r"^(encoder|decoder)\.mid\.attn_1\.", r"\1.mid_block.attentions.0."),
    (r"\.attentions\.0\.norm\.", ".attentions.0.group_norm."),
    (r"\.attentions\.0\.([qkv])\.", r".attentions.0.to_\1."),
    (r"\.attentions\.0\.proj_out\.", ".attentions.0.to_out.0."),
    (r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
]
_PROJECTOR = [
    (r"^layers\.(\d+)\.0\.norm1\.", r"layers.\1.norm_tokens."),
    (r"^layers\.(\d+)\.0\.norm2\.", r"layers.\1.norm_queries."),
    (r"^layers\.(\d+)\.0\.", r"layers.\1."),
    (r"^layers\.(\d+)\.1\.", r"layers.\1.ff."),
]


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """Return the arguments of diffusers' AutoencoderKL."""
    levels = 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith("encoder.down."))
    first = {name.split(".")[4] for name in shapes if name.startswith("encoder.down.0.block.")}
    return {
        "in_channels": shapes["encoder.conv_in.weight"].shape[1],
        "out_channels": shapes["decoder.conv_out.weight"].shape[0],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [
            shapes[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)
        ],
        "layers_per_block": len(first),
        "latent_channels": shapes["post_quant_conv.weight"].shape[0],
        "scaling_factor": 0.18215,
        "sample_size": 256,  # pixels of a tile, where tiling is asked for; diffusers' own 32 leaves seams
    }


def vae_origins(shapes: Shapes, prefix: str = "") -> Origins:
    """Return where each tensor of AutoencoderKL comes from; its decoder counts levels from the deepest."""
    deepest = max(int(name.split(".")[2]) for name in shapes if name.startswith("encoder.down."))

    def up(match: re.Match[str]) -> str:
        part = {"block": "resnets", "upsample": "upsamplers.0"}[match[2]]
        return f"decoder.up_blocks.{deepest - int(match[1])}.{part}."

    rules = [*_VAE, (r"^decoder\.up\.(\d+)\.(block|upsample)\.", up)]
    return {_replaced(name, rules): Origin(name=prefix + name) for name in shapes}


def text_config(shapes: Shapes, *, head_dim: int = 64) -> dict[str, Any]:
    """Return the arguments of CLIPTextConfig. Its last block is left out: "penultimate" ends before it."""
    width = shapes["ln_final.weight"].shape[0]
    vocabulary = shapes["token_embedding.weight"].shape[0]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "projection_dim": width,
        "num_hidden_layers": _num_blocks(shapes) - 1,
        "num_attention_heads": width // head_dim,
        "max_position_embeddings": shapes["positional_embedding"].shape[0],
        "hidden_act": "gelu",
        "pad_token_id": 0,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def text_origins(shapes: Shapes, prefix: str = "") -> Origins:
    """Return where each tensor of CLIPTextModel comes from."""
    last = f"transformer.resblocks.{_num_blocks(shapes) - 1}."
    kept = {name for name in shapes if not name.startswith(last)}
    return dict(_clip_origins(kept, _CLIP_TEXT, prefix))


def vision_config(shapes: Shapes, *, head_dim: int = 80) -> dict[str, Any]:
    """Return the arguments of CLIPVisionConfig."""
    width, _, patch, _ = shapes["conv1.weight"].shape
    grid = round((shapes["positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "hidden_size": width,
        "intermediate_size": shapes["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": _num_blocks(shapes),
        "num_attention_heads": width // head_dim,
        "image_size": grid * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
    }


def vision_origins(shapes: Shapes, prefix: str = "") -> Origins:
    """Return where each tensor of CLIPVisionModel comes from; names are those below `visual.`."""
    return dict(_clip_origins(shapes, _CLIP_VISION, prefix))


def projector_config(shapes: Shapes, *, num_frames: int, head_dim: int = 64) -> dict[str, Any]:
    """Return the arguments of VideoCrafterImageProjector. num_frames: that share the learned queries."""
    _, queries, width = shapes["latents"].shape
    return {
        "hidden_size": width,
        "num_layers": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("layers.")),
        "attention_head_dim": head_dim,
        "num_attention_heads": shapes["layers.0.0.to_q.weight"].shape[0] // head_dim,
        "num_queries": queries // num_frames,
        "num_frames": num_frames,
        "image_embed_dim": shapes["proj_in.weight"].shape[1],
        "cross_attention_dim": shapes["proj_out.weight"].shape[0],
        "ff_mult": shapes["layers.0.1.1.weight"].shape[0] // width,
    }


def projector_origins(shapes: Shapes, prefix: str = "") -> Origins:
    """Return where each tensor of VideoCrafterImageProjector comes from."""
    return {_replaced(name, _PROJECTOR): Origin(name=prefix + name) for name in shapes}


def _clip_origins(names: Any, top: Mapping[str, str], prefix: str) -> Iterator[tuple[str, Origin]]:
    """Yield our name and its origin; what our models do not have is left out."""
    for name in names:
        block = re.match(r"transformer\.resblocks\.(\d+)\.(.*)\.?(weight|bias)$", name)
        if name in top:
            yield top[name], Origin(name=prefix + name)
        elif block and block[2].startswith("attn.in_proj"):
            for i, part in enumerate("qkv"):
                ours = f"encoder.layers.{block[1]}.self_attn.{part}_proj.{block[3]}"
                yield ours, Origin(name=prefix + name, change=partial(_third, i=i))
        elif block and block[2].rstrip(".") in _CLIP_BLOCK:
            part = _CLIP_BLOCK[block[2].rstrip(".")]
            yield f"encoder.layers.{block[1]}.{part}.{block[3]}", Origin(name=prefix + name)


def _third(tensor: Tensor, *, i: int) -> Tensor:
    return tensor.chunk(3)[i]


def _num_blocks(shapes: Shapes) -> int:
    blocks = {name.split(".")[2] for name in shapes if name.startswith("transformer.resblocks.")}
    return len(blocks)


def _replaced(name: str, rules: Any) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
