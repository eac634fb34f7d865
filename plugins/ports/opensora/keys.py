"""Derives our configs and the origin of each of our tensors from the keys of Open-Sora v2's checkpoints.

The transformer becomes diffusers' FluxTransformer2DModel. It is Flux with one more Linear, `cond_in`, whose
output is added to that of `img_in`. Two Linears that are added are one Linear of both inputs side by side, so
no class of our own is needed: `x_embedder` takes the noisy tokens, then the tokens of mask and reference.

Released checkpoints rotate pairs (d, d + 64) of a head, diffusers pairs (2d, 2d + 1): the rows of queries and
keys are put in that order. Checkpoints in Flux's own layout, with one `qkv`, are in it already.

A video DC-AE becomes AutoencoderDCVideo: renamed, nothing else. HunyuanVideo's is named as in diffusers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from framefleet.api.errors import count_text
from framefleet.plugins.ports.conversion import plan

Change = Callable[[Tensor], Tensor]
Layer = tuple[str, str, Change]  # their name, ours, and what becomes of weight and bias

_OUTER = {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "txt_in": "context_embedder",
    "final_layer.linear": "proj_out",
}
_STREAMS = {  # of a double block: norm, queries, keys, values, output, norms of queries and keys, MLP
    "img": ("norm1", "to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k", "ff"),
    "txt": (
        *("norm1_context", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("norm_added_q", "norm_added_k", "ff_context"),
    ),
}
_HEAD_SCALE = "double_blocks.0.img_attn.norm.query_norm.scale"  # as many values as a head has
_NORMS = ("query_norm", "key_norm")  # whose weight is called `scale`


def is_transformer(shapes: plan.TensorShapes) -> bool:
    """Tell whether these are keys of an Open-Sora v2 transformer, or of Flux in its authors' layout."""
    ends = {"img_in.weight", "txt_in.weight", "vector_in.in_layer.weight", "final_layer.linear.weight"}
    return bool(ends & set(shapes)) and any(name.startswith("double_blocks.") for name in shapes)


def is_conditioned(shapes: plan.TensorShapes) -> bool:
    """Whether it takes mask and given frames, which Flux does not."""
    return bool({"cond_in.weight", "cond_in.bias"} & set(shapes))


def transformer_config(shapes: plan.TensorShapes) -> dict[str, Any]:
    head, (hidden, inputs) = _head(shapes), plan.size_of(shapes, "img_in.weight", 2)
    token, _ = plan.size_of(shapes, "final_layer.linear.weight", 2)
    condition = plan.size_of(shapes, "cond_in.weight", 2)[1] if is_conditioned(shapes) else 0
    # The condition has one channel more than the latents, the mask. Flux has none, and takes 2 x 2 patches.
    area = condition - token if condition else 4
    if area < 1 or math.isqrt(area) ** 2 != area:
        raise ValueError(f"cond_in.weight takes {condition} channels, and not a mask next to {token}")
    return {
        "patch_size": math.isqrt(area),
        "in_channels": inputs + condition,
        "out_channels": token // area,
        "num_layers": plan.count_below(shapes, "double_blocks."),
        "num_single_layers": plan.count_below(shapes, "single_blocks."),
        "attention_head_dim": head,
        "num_attention_heads": hidden // head,
        "joint_attention_dim": plan.size_of(shapes, "txt_in.weight", 2)[1],
        "pooled_projection_dim": plan.size_of(shapes, "vector_in.in_layer.weight", 2)[1],
        "guidance_embeds": any(name.startswith("guidance_in.") for name in shapes),
        "axes_dims_rope": axes_of(head),
    }


def axes_of(head: int) -> list[int]:
    """Return how a head is shared among frames, rows and columns: about 1 : 3.5 : 3.5, in even numbers."""
    frames = next((size for size in range(2 * -(-head // 16), head, 2) if (head - size) % 4 == 0), None)
    if frames is None:
        raise ValueError(f"{_HEAD_SCALE} has {count_text(head, 'value')}, which three axes cannot share")
    return [frames, (head - frames) // 2, (head - frames) // 2]


def transformer_origins(names: Iterable[str], shapes: plan.TensorShapes) -> dict[str, plan.Origin]:
    layers = {ours: (theirs, change) for theirs, ours, change in _layers(shapes)}
    origins = {}
    for name in names:
        ours, _, suffix = name.rpartition(".")
        if ours == "x_embedder":
            more = (f"cond_in.{suffix}",) if is_conditioned(shapes) else ()
            origins[name] = plan.Origin(name=f"img_in.{suffix}", more=more, change=_joined)
        else:
            theirs, change = layers[ours]
            suffix = "scale" if theirs.endswith(_NORMS) else suffix
            origins[name] = plan.Origin(name=f"{theirs}.{suffix}", change=change)
    return origins


def _layers(shapes: plan.TensorShapes) -> Iterator[Layer]:
    is_split = any(".q_proj." in name for name in shapes)
    hidden, head = shapes["img_in.weight"].shape[0], _head(shapes)
    turned = partial(_interleave, head=head) if is_split else plan.unchanged
    for theirs, ours in _OUTER.items():
        yield theirs, ours, plan.unchanged
    yield "final_layer.adaLN_modulation.1", "norm_out.linear", _swap_halves
    for i in range(plan.count_below(shapes, "double_blocks.")):
        for layer in _double_block(turned, is_split=is_split):
            yield f"double_blocks.{i}.{layer[0]}", f"transformer_blocks.{i}.{layer[1]}", layer[2]
    for i in range(plan.count_below(shapes, "single_blocks.")):
        for layer in _single_block(hidden, turned, is_split=is_split):
            yield f"single_blocks.{i}.{layer[0]}", f"single_transformer_blocks.{i}.{layer[1]}", layer[2]


def _double_block(turned: Change, *, is_split: bool) -> Iterator[Layer]:
    for stream, (norm, q, k, v, out, norm_q, norm_k, feed_forward) in _STREAMS.items():
        yield f"{stream}_mod.lin", f"{norm}.linear", plan.unchanged
        if is_split:
            yield f"{stream}_attn.q_proj", f"attn.{q}", turned
            yield f"{stream}_attn.k_proj", f"attn.{k}", turned
            yield f"{stream}_attn.v_proj", f"attn.{v}", plan.unchanged
        else:
            for index, name in enumerate((q, k, v)):
                yield f"{stream}_attn.qkv", f"attn.{name}", partial(plan.third, i=index)
        yield f"{stream}_attn.proj", f"attn.{out}", plan.unchanged
        yield f"{stream}_attn.norm.query_norm", f"attn.{norm_q}", turned
        yield f"{stream}_attn.norm.key_norm", f"attn.{norm_k}", turned
        yield f"{stream}_mlp.0", f"{feed_forward}.net.0.proj", plan.unchanged
        yield f"{stream}_mlp.2", f"{feed_forward}.net.2", plan.unchanged


def _single_block(hidden: int, turned: Change, *, is_split: bool) -> Iterator[Layer]:
    yield "modulation.lin", "norm.linear", plan.unchanged
    if is_split:
        yield "q_proj", "attn.to_q", turned
        yield "k_proj", "attn.to_k", turned
        yield "v_mlp", "attn.to_v", partial(_rows, start=0, stop=hidden)
        yield "v_mlp", "proj_mlp", partial(_rows, start=hidden, stop=None)
    else:
        for index, name in enumerate(("to_q", "to_k", "to_v")):
            yield "linear1", f"attn.{name}", partial(_rows, start=index * hidden, stop=(index + 1) * hidden)
        yield "linear1", "proj_mlp", partial(_rows, start=3 * hidden, stop=None)
    yield "linear2", "proj_out", plan.unchanged
    yield "norm.query_norm", "attn.norm_q", turned
    yield "norm.key_norm", "attn.norm_k", turned


def _head(shapes: plan.TensorShapes) -> int:
    return plan.size_of(shapes, _HEAD_SCALE, 1)[0]


def _rows(tensor: Tensor, *, start: int, stop: int | None) -> Tensor:
    return tensor[start:stop]


def _interleave(tensor: Tensor, *, head: int) -> Tensor:
    """Reorder the rows of each head from [0, 1, ..., 64, 65, ...] to [0, 64, 1, 65, ...]."""
    return tensor.unflatten(0, (-1, 2, head // 2)).transpose(1, 2).flatten(0, 2)


def _swap_halves(tensor: Tensor) -> Tensor:
    return torch.cat(tensor.chunk(2)[::-1])


def _joined(*tensors: Tensor) -> Tensor:
    """Weights stand side by side, biases are added."""
    return torch.cat(tensors, dim=1) if tensors[0].dim() > 1 else torch.stack(tensors).sum(dim=0)


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

# Names of tensors that only this autoencoder has.
DC_NAME = re.compile(r"(en|de)coder\.stages\.\d+\.op_list\.")
HUNYUAN_NAME = re.compile(r"(en|de)coder\.(down|up)_blocks\.\d+\..+\.conv\.weight$")
_GROUPS = 32  # of norms in the released model, which no tensor tells


def dc_origins(names: Iterable[str], shapes: plan.TensorShapes) -> dict[str, plan.Origin]:
    return {name: plan.Origin(name=plan.renamed(name, _ORIGINAL)) for name in names}


def dc_config(shapes: plan.TensorShapes) -> dict[str, Any]:
    encoder, decoder = _levels(shapes, "encoder"), _levels(shapes, "decoder")
    groups = [name for name in shapes if name.endswith(".context_module.main.aggreg.0.1.weight")]
    return {
        "in_channels": plan.size_of(shapes, "encoder.project_in.conv.weight", 5)[1],
        "latent_channels": plan.size_of(shapes, "encoder.project_out.main.op_list.0.conv.weight", 5)[0],
        "attention_head_dim": plan.size_of(shapes, groups[0], 5)[1] if groups else 32,
        "encoder_block_types": [kind for kind, _, _ in encoder],
        "decoder_block_types": [kind for kind, _, _ in decoder],
        "encoder_block_out_channels": [width for _, width, _ in encoder],
        "decoder_block_out_channels": [width for _, width, _ in decoder],
        "encoder_layers_per_block": [depth for _, _, depth in encoder],
        "decoder_layers_per_block": [depth for _, _, depth in decoder],
        "temporal_compression_ratio": 4,  # strides, which no tensor tells
    }


def _levels(shapes: plan.TensorShapes, half: str) -> list[tuple[str, int, int]]:
    """Return (block type, width, depth) of each level. Raises KeyError for one without blocks."""
    blocks_by_level: list[dict[str, tuple[str, int]]] = [
        {} for _ in range(plan.count_below(shapes, f"{half}.stages."))
    ]
    for name, tensor in shapes.items():
        block = re.match(rf"{half}\.stages\.(\d+)\.op_list\.(\d+)\.(.+)\.weight$", name)
        if block and block[3] in _LAST:
            blocks_by_level[int(block[1])][block[2]] = (_LAST[block[3]], tensor.shape[0])
    for level, blocks in enumerate(blocks_by_level):
        if not blocks:
            raise KeyError(f"{half}.stages.{level}.op_list.0.main.conv1.conv.weight")
    return [(*next(iter(blocks.values())), len(blocks)) for blocks in blocks_by_level]


def hunyuan_config(shapes: plan.TensorShapes) -> dict[str, Any]:
    """Return the config that the shapes tell; the groups of its norms where they can be the released ones."""
    levels = range(plan.count_below(shapes, "encoder.down_blocks."))
    widths = [
        plan.size_of(shapes, f"encoder.down_blocks.{i}.resnets.0.conv1.conv.weight", 5)[0] for i in levels
    ]
    return {
        "latent_channels": plan.size_of(shapes, "post_quant_conv.weight", 5)[0],
        "block_out_channels": widths,
        "layers_per_block": plan.count_below(shapes, "encoder.down_blocks.0.resnets."),
        "norm_num_groups": _GROUPS if all(width % _GROUPS == 0 for width in widths) else None,
        "down_block_types": ["HunyuanVideoDownBlock3D"] * len(widths),
        "up_block_types": ["HunyuanVideoUpBlock3D"] * len(widths),
    }
