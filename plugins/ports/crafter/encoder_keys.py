"""From the names and shapes of the other parts of an original checkpoint to configs and origins of ours.

The autoencoder of Stable Diffusion, the two towers of open_clip's ViT-H-14, the projectors of image tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from framefleet.plugins.ports.conversion.plan import (
    Origin,
    as_linear,
    count_below,
    renamed,
    size_of,
    unchanged,
    whole_parts,
)

_Shapes = Mapping[str, Tensor]
_Names = Iterable[str]
Origins = dict[str, Origin]

# Channels of one head in the released models, which no tensor tells.
_HEAD, _VISION_HEAD = 64, 80
_TOKENS_PER_FRAME = 16
CLIP_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
CLIP_TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
CLIP_VISION = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "pre_layrnorm.weight": "ln_pre.weight",  # as transformers spells it
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
_VAE = [
    (r"\.mid_block\.resnets\.(\d)\.", lambda m: f".mid.block_{int(m[1]) + 1}."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
    (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
    (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
    (r"^encoder\.down_blocks\.", "encoder.down."),
    (r"\.resnets\.", ".block."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
]
_PROJECTOR = [
    (r"^layers\.(\d+)\.norm_tokens\.", r"layers.\1.0.norm1."),
    (r"^layers\.(\d+)\.norm_queries\.", r"layers.\1.0.norm2."),
    (r"^layers\.(\d+)\.to_", r"layers.\1.0.to_"),
    (r"^layers\.(\d+)\.ff\.", r"layers.\1.1."),
]


def vae_config(shapes: _Shapes) -> dict[str, Any]:
    """Return the arguments of diffusers' AutoencoderKL."""
    levels = count_below(shapes, "encoder.down.")
    return {
        "in_channels": size_of(shapes, "encoder.conv_in.weight", 4)[1],
        "out_channels": size_of(shapes, "decoder.conv_out.weight", 4)[0],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [
            size_of(shapes, f"encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)
        ],
        "layers_per_block": count_below(shapes, "encoder.down.0.block."),
        "latent_channels": size_of(shapes, "post_quant_conv.weight", 4)[0],
        "norm_num_groups": 32,  # of all that the originals build
        "scaling_factor": 0.18215,
        "sample_size": 256,  # pixels of a tile, where tiling is asked for; diffusers' own 32 leaves seams
    }


def vae_origins(names: _Names, shapes: _Shapes) -> Origins:
    """Return where each tensor of AutoencoderKL comes from; the original counts up from the last level."""
    deepest = count_below(shapes, "encoder.down.") - 1
    rules = [(r"^decoder\.up_blocks\.(\d+)\.", lambda m: f"decoder.up.{deepest - int(m[1])}."), *_VAE]
    return {
        name: Origin(
            name=renamed(name, rules),
            change=partial(as_linear, dims=2) if ".attentions.0.to_" in name else unchanged,
        )
        for name in names
    }


def text_config(shapes: _Shapes) -> dict[str, Any]:
    """Return the arguments of CLIPTextConfig. Its last block is left out: "penultimate" ends before it."""
    (width,) = size_of(shapes, "ln_final.weight", 1)
    vocabulary, _ = size_of(shapes, "token_embedding.weight", 2)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": size_of(shapes, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        "projection_dim": width,
        "num_hidden_layers": count_below(shapes, "transformer.resblocks.") - 1,
        "num_attention_heads": whole_parts(width, _HEAD),
        "max_position_embeddings": size_of(shapes, "positional_embedding", 2)[0],
        "hidden_act": "gelu",
        "pad_token_id": 0,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def text_origins(names: _Names, shapes: _Shapes) -> Origins:
    """Return where each tensor of CLIPTextModel comes from."""
    return dict(_clip_origins(names, CLIP_TEXT))


def vision_config(shapes: _Shapes) -> dict[str, Any]:
    """Return the arguments of CLIPVisionConfig. The names are those below `visual.`."""
    width, _, patch, _ = size_of(shapes, "conv1.weight", 4)
    positions, _ = size_of(shapes, "positional_embedding", 2)
    return {
        "hidden_size": width,
        "intermediate_size": size_of(shapes, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        "projection_dim": size_of(shapes, "proj", 2)[1] if "proj" in shapes else width,
        "num_hidden_layers": count_below(shapes, "transformer.resblocks."),
        "num_attention_heads": whole_parts(width, _VISION_HEAD),
        "image_size": round((positions - 1) ** 0.5) * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
    }


def vision_origins(names: _Names, shapes: _Shapes) -> Origins:
    """Return where each tensor of CLIPVisionModel comes from, or of that with projection."""
    inner = {name.removeprefix("vision_model."): name for name in names}
    origins = {inner[ours]: origin for ours, origin in _clip_origins(inner, CLIP_VISION)}
    if "visual_projection.weight" in inner:
        origins["visual_projection.weight"] = Origin(name="proj", change=_transposed)
    return origins


def projector_config(shapes: _Shapes) -> dict[str, Any]:
    """Return the arguments of VideoCrafterImageProjector."""
    _, queries, width = size_of(shapes, "latents", 3)
    inner, _ = size_of(shapes, "layers.0.0.to_q.weight", 2)
    num_frames = max(1, queries // _TOKENS_PER_FRAME)
    return {
        "hidden_size": width,
        "num_layers": count_below(shapes, "layers."),
        "attention_head_dim": _HEAD if whole_parts(inner, _HEAD) else None,
        "num_attention_heads": whole_parts(inner, _HEAD),
        "num_queries": queries // num_frames,
        "num_frames": num_frames,
        "image_embed_dim": size_of(shapes, "proj_in.weight", 2)[1],
        "cross_attention_dim": size_of(shapes, "proj_out.weight", 2)[0],
        "ff_mult": size_of(shapes, "layers.0.1.1.weight", 2)[0] // width,
    }


def projector_origins(names: _Names, shapes: _Shapes) -> Origins:
    """Return where each tensor of VideoCrafterImageProjector comes from."""
    return {name: Origin(name=renamed(name, _PROJECTOR)) for name in names}


def pooled_projector_config(shapes: _Shapes) -> dict[str, Any]:
    """Return the arguments of VideoCrafterPooledImageProjector."""
    (width,) = size_of(shapes, "norm.weight", 1)
    outputs, inputs = size_of(shapes, "proj.weight", 2)
    return {"image_embed_dim": inputs, "cross_attention_dim": width, "num_queries": outputs // width}


def is_block_tensor(name: str) -> bool:
    """Whether a block of open_clip's towers has a tensor of that name, which does not number the block."""
    stem, _, kind = name.rpartition(".")
    in_projection = name in ("attn.in_proj_weight", "attn.in_proj_bias")
    return in_projection or (stem in CLIP_BLOCK.values() and kind in ("weight", "bias"))


def _clip_origins(names: _Names, top: Mapping[str, str]) -> Iterator[tuple[str, Origin]]:
    for name in names:
        if name in top:
            yield name, Origin(name=top[name])
        elif block := re.match(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$", name):
            theirs, part = f"transformer.resblocks.{block[1]}", block[2]
            if part in CLIP_BLOCK:
                yield name, Origin(name=f"{theirs}.{CLIP_BLOCK[part]}.{block[3]}")
            else:  # self_attn.q_proj and its likes
                change = partial(_third, i="qkv".index(part.removeprefix("self_attn.")[0]))
                yield name, Origin(name=f"{theirs}.attn.in_proj_{block[3]}", change=change)


def _third(tensor: Tensor, *, i: int) -> Tensor:
    return tensor.chunk(3)[i]


def _transposed(weight: Tensor) -> Tensor:
    return weight.t()
