"""Derives our configs and the origin of each of our tensors from an original checkpoint's names and shapes.

For the denoiser of VideoCrafter and DynamiCrafter, the autoencoder of Stable Diffusion, the two towers of
open_clip's ViT-H-14, and the projectors of image tokens.

The original denoiser numbers its blocks in one row and calls a block's parts by number; diffusers has levels.
With n residual blocks on each level, input block 1 + l(n + 1) + j is block j of level l, and the last j is
the downsampler. Output blocks count likewise, from the deepest level.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from framefleet.plugins.ports.conversion import plan

_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "transformer_in": "init_attn.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_TEMPORAL_CONV = "temopral_conv"  # as the originals spell it
_INNER = {
    ".processor.relative_position_k.weight": ".relative_position_k.embeddings_table",
    ".processor.relative_position_v.weight": ".relative_position_v.embeddings_table",
    ".processor.to_k_ip.": ".to_k_ip.",
    ".processor.to_v_ip.": ".to_v_ip.",
    ".processor.alpha": ".alpha",
}
_BLOCK = "transformer_blocks.0"
_FPS = ("fps_embedding", "framestride_embed")  # the second in DynamiCrafter 256 as first released
_FIRST_HEADS = 8  # of the temporal transformer before the first block, whatever its width


def unet_origins(names: Iterable[str], shapes: plan.TensorShapes) -> dict[str, plan.Origin]:
    """Return where each of our tensors comes from. names: ours."""
    stems = _TOP | _Layout(shapes).stems
    return {
        name: plan.Origin(
            name=_original(name, stems),
            # Those of the first temporal transformer are convolutions of one frame.
            change=partial(plan.as_linear, dims=1)
            if name.startswith("transformer_in.proj_")
            else plan.unchanged,
        )
        for name in names
    }


def unet_config(shapes: plan.TensorShapes) -> dict[str, Any]:
    layout = _Layout(shapes)
    first = f"init_attn.0.{_BLOCK}.attn1"
    has_positions = any(".relative_position_" in name for name in shapes)
    table = f"{first}.relative_position_k.embeddings_table"
    keys = [name for name in shapes if name.startswith("middle_block.1.") and ".attn2." in name]
    return {
        "in_channels": plan.size_of(shapes, "input_blocks.0.0.weight", 4)[1],
        "out_channels": plan.size_of(shapes, "out.2.weight", 4)[0],
        "down_block_types": [f"{'CrossAttn' if has else ''}DownBlock3D" for has in layout.attends],
        "up_block_types": [f"{'CrossAttn' if has else ''}UpBlock3D" for has in reversed(layout.attends)],
        "block_out_channels": [
            plan.size_of(shapes, f"input_blocks.{1 + level * layout.per_level}.0.out_layers.3.weight", 4)[0]
            for level in layout.levels
        ],
        "layers_per_block": layout.per_level - 1,
        "cross_attention_dim": plan.size_of(shapes, f"middle_block.1.{_BLOCK}.attn2.to_k.weight", 2)[1],
        "attention_head_dim": plan.size_of(shapes, f"{first}.to_q.weight", 2)[0] // _FIRST_HEADS,
        "default_fps": 16 if layout.fps else None,  # of the original's forward; each variant has its own
        "use_temporal_conv": any(f".{_TEMPORAL_CONV}." in name for name in shapes),
        "max_relative_position": (plan.size_of(shapes, table, 2)[0] - 1) // 2 if has_positions else None,
        "image_cross_attention": any("_ip." in name for name in keys),
        "learnable_image_scale": any(name.endswith(".alpha") for name in keys),
    }


class _Layout:
    """How the original numbers its blocks. Raises ValueError for two embeddings of fps."""

    def __init__(self, shapes: plan.TensorShapes) -> None:
        samplers = {int(n.split(".")[1]) for n in shapes if n.startswith("input_blocks.") and ".0.op." in n}
        # Input blocks of each level, its residual blocks and the downsampler.
        self.per_level = min(samplers, default=plan.count_below(shapes, "input_blocks."))
        firsts = [1 + level * self.per_level for level in range(len(samplers) + 1)]
        self.attends = [any(n.startswith(f"input_blocks.{first}.1.") for n in shapes) for first in firsts]
        fps = [stem for stem in _FPS if any(name.startswith(f"{stem}.") for name in shapes)]
        if len(fps) > 1:
            raise ValueError(f"{fps[0]} and {fps[1]} are two names of one layer: take one of them out")
        self.fps = fps[0] if fps else None  # what the original calls the embedding of fps

    @property
    def levels(self) -> range:
        return range(len(self.attends))

    @property
    def stems(self) -> dict[str, str]:
        """Return the original's name of each of our parts that it numbers."""
        fps = {f"fps_embedding.linear_{i}": f"{self.fps}.{2 * i - 2}" for i in (1, 2)}
        return fps | {ours: theirs for theirs, ours in self._pairs()}

    def _pairs(self) -> Iterator[tuple[str, str]]:
        last = self.per_level - 1
        for level, attends in zip(self.levels, reversed(self.attends), strict=True):
            for j in range(last):
                yield from _parts(f"input_blocks.{1 + level * self.per_level + j}", f"down_blocks.{level}", j)
            for j in range(self.per_level):
                yield from _parts(f"output_blocks.{level * self.per_level + j}", f"up_blocks.{level}", j)
            sampler = f"input_blocks.{(level + 1) * self.per_level}.0.op"
            yield sampler, f"down_blocks.{level}.downsamplers.0.conv"
            behind = 3 if attends else 1  # the residual block, and both attentions where the level has them
            sampler = f"output_blocks.{level * self.per_level + last}.{behind}.conv"
            yield sampler, f"up_blocks.{level}.upsamplers.0.conv"
        yield from _parts("middle_block", "mid_block", 0)
        yield from _residual("middle_block.3", "mid_block", 1)


def _parts(theirs: str, ours: str, j: int) -> Iterator[tuple[str, str]]:
    """A residual block, spatial attention and temporal attention, by their numbers."""
    yield from _residual(f"{theirs}.0", ours, j)
    yield f"{theirs}.1", f"{ours}.attentions.{j}"
    yield f"{theirs}.2", f"{ours}.temp_attentions.{j}"


def _residual(theirs: str, ours: str, j: int) -> Iterator[tuple[str, str]]:
    yield from ((f"{theirs}.{part}", f"{ours}.resnets.{j}.{name}") for name, part in _RESIDUAL.items())
    yield f"{theirs}.{_TEMPORAL_CONV}", f"{ours}.temp_convs.{j}"


def _original(name: str, stems: Mapping[str, str]) -> str:
    """Replace our name's longest known beginning, then the names inside attention."""
    pieces = name.split(".")
    beginnings = (".".join(pieces[:count]) for count in range(len(pieces), 0, -1))
    stem = next((beginning for beginning in beginnings if beginning in stems), None)
    if stem is None:
        raise KeyError(name)
    name = stems[stem] + name[len(stem) :]
    for ours, theirs in _INNER.items():
        name = name.replace(ours, theirs)
    return name


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


def vae_config(shapes: plan.TensorShapes) -> dict[str, Any]:
    levels = plan.count_below(shapes, "encoder.down.")
    return {
        "in_channels": plan.size_of(shapes, "encoder.conv_in.weight", 4)[1],
        "out_channels": plan.size_of(shapes, "decoder.conv_out.weight", 4)[0],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [
            plan.size_of(shapes, f"encoder.down.{level}.block.0.conv1.weight", 4)[0]
            for level in range(levels)
        ],
        "layers_per_block": plan.count_below(shapes, "encoder.down.0.block."),
        "latent_channels": plan.size_of(shapes, "post_quant_conv.weight", 4)[0],
        "norm_num_groups": 32,  # of all that the originals build
        "scaling_factor": 0.18215,
        "sample_size": 256,  # pixels of a tile, where tiling is asked for; diffusers' own 32 leaves seams
    }


def vae_origins(names: Iterable[str], shapes: plan.TensorShapes) -> dict[str, plan.Origin]:
    """Return where each tensor of AutoencoderKL comes from; the original counts up from the last level."""
    deepest = plan.count_below(shapes, "encoder.down.") - 1
    rules = [(r"^decoder\.up_blocks\.(\d+)\.", lambda m: f"decoder.up.{deepest - int(m[1])}."), *_VAE]
    return {
        name: plan.Origin(
            name=plan.renamed(name, rules),
            change=partial(plan.as_linear, dims=2) if ".attentions.0.to_" in name else plan.unchanged,
        )
        for name in names
    }


def text_config(shapes: plan.TensorShapes) -> dict[str, Any]:
    """Return the arguments of CLIPTextConfig. Its last block is left out: "penultimate" ends before it."""
    (width,) = plan.size_of(shapes, "ln_final.weight", 1)
    vocabulary, _ = plan.size_of(shapes, "token_embedding.weight", 2)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": plan.size_of(shapes, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        "projection_dim": width,
        "num_hidden_layers": plan.count_below(shapes, "transformer.resblocks.") - 1,
        "num_attention_heads": plan.whole_parts(width, _HEAD),
        "max_position_embeddings": plan.size_of(shapes, "positional_embedding", 2)[0],
        "hidden_act": "gelu",
        "pad_token_id": 0,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def text_origins(names: Iterable[str], shapes: plan.TensorShapes) -> dict[str, plan.Origin]:
    return dict(_clip_origins(names, CLIP_TEXT))


def vision_config(shapes: plan.TensorShapes) -> dict[str, Any]:
    """Return the arguments of CLIPVisionConfig. The names are those below `visual.`."""
    width, _, patch, _ = plan.size_of(shapes, "conv1.weight", 4)
    positions, _ = plan.size_of(shapes, "positional_embedding", 2)
    return {
        "hidden_size": width,
        "intermediate_size": plan.size_of(shapes, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        "projection_dim": plan.size_of(shapes, "proj", 2)[1] if "proj" in shapes else width,
        "num_hidden_layers": plan.count_below(shapes, "transformer.resblocks."),
        "num_attention_heads": plan.whole_parts(width, _VISION_HEAD),
        "image_size": round((positions - 1) ** 0.5) * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
    }


def vision_origins(names: Iterable[str], shapes: plan.TensorShapes) -> dict[str, plan.Origin]:
    """Return where each tensor of CLIPVisionModel comes from, or of that with projection."""
    inner = {name.removeprefix("vision_model."): name for name in names}
    origins = {inner[ours]: origin for ours, origin in _clip_origins(inner, CLIP_VISION)}
    if "visual_projection.weight" in inner:
        origins["visual_projection.weight"] = plan.Origin(name="proj", change=Tensor.t)
    return origins


def projector_config(shapes: plan.TensorShapes) -> dict[str, Any]:
    _, queries, width = plan.size_of(shapes, "latents", 3)
    inner, _ = plan.size_of(shapes, "layers.0.0.to_q.weight", 2)
    num_frames = max(1, queries // _TOKENS_PER_FRAME)
    return {
        "hidden_size": width,
        "num_layers": plan.count_below(shapes, "layers."),
        "attention_head_dim": _HEAD if plan.whole_parts(inner, _HEAD) else None,
        "num_attention_heads": plan.whole_parts(inner, _HEAD),
        "num_queries": queries // num_frames,
        "num_frames": num_frames,
        "image_embed_dim": plan.size_of(shapes, "proj_in.weight", 2)[1],
        "cross_attention_dim": plan.size_of(shapes, "proj_out.weight", 2)[0],
        "ff_mult": plan.size_of(shapes, "layers.0.1.1.weight", 2)[0] // width,
    }


def projector_origins(names: Iterable[str], shapes: plan.TensorShapes) -> dict[str, plan.Origin]:
    return {name: plan.Origin(name=plan.renamed(name, _PROJECTOR)) for name in names}


def pooled_projector_config(shapes: plan.TensorShapes) -> dict[str, Any]:
    (width,) = plan.size_of(shapes, "norm.weight", 1)
    outputs, inputs = plan.size_of(shapes, "proj.weight", 2)
    return {"image_embed_dim": inputs, "cross_attention_dim": width, "num_queries": outputs // width}


def is_block_tensor(name: str) -> bool:
    """Whether a block of open_clip's towers has a tensor of that name, which does not number the block."""
    stem, _, kind = name.rpartition(".")
    in_projection = name in ("attn.in_proj_weight", "attn.in_proj_bias")
    return in_projection or (stem in CLIP_BLOCK.values() and kind in ("weight", "bias"))


def _clip_origins(names: Iterable[str], top: Mapping[str, str]) -> Iterator[tuple[str, plan.Origin]]:
    for name in names:
        if name in top:
            yield name, plan.Origin(name=top[name])
        elif block := re.match(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$", name):
            theirs, part = f"transformer.resblocks.{block[1]}", block[2]
            if part in CLIP_BLOCK:
                yield name, plan.Origin(name=f"{theirs}.{CLIP_BLOCK[part]}.{block[3]}")
            else:  # self_attn.q_proj and its likes
                change = partial(plan.third, i="qkv".index(part.removeprefix("self_attn.")[0]))
                yield name, plan.Origin(name=f"{theirs}.attn.in_proj_{block[3]}", change=change)
