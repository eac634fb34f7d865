"""Keys of LoRAs as six programs write them, for tiny pipelines: what belongs there, and what does not.

Random values; shapes are those of the pipeline's own layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

RANK = 2
_Keys = dict[str, Tensor]
Others = Callable[[_Keys], _Keys]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """model: whose layers. layers: the keys of each layer. others: keys of what diffusers has no use for.

    biases: of each layer, where the dialect has them. is_whole: diffusers reads only files of all layers.
    """

    model: str
    layers: Callable[[Any], list[_Keys]]
    others: Others
    biases: str = ""
    is_whole: bool = False


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) + 3  # nowhere zero


def _linears(network: nn.Module, *ends: str) -> Iterator[tuple[str, nn.Linear]]:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(ends):
            yield name, layer


def _pair(
    key: str, width: int, out: int, *, names: tuple[str, str], alpha: bool = False, bias: str = ""
) -> _Keys:
    down, up = names
    keys = {f"{key}.{down}.weight": _random(RANK, width), f"{key}.{up}.weight": _random(out, RANK)}
    keys |= {f"{key}.alpha": torch.tensor(3.0)} if alpha else {}
    return keys | ({f"{key}.{bias}": _random(out)} if bias else {})


def _peft(pipe: Any) -> list[_Keys]:
    return [
        _pair(f"transformer.{name}", layer.in_features, layer.out_features, names=("lora_A", "lora_B"))
        for name, layer in _linears(
            pipe.transformer, "to_q", "to_k", "to_v", "to_out.0", "net.2", "time_proj"
        )
    ]


def _kohya(pipe: Any) -> list[_Keys]:
    encoder = pipe.text_encoder
    names = {"lora_unet": pipe.unet, "lora_te_text_model": getattr(encoder, "text_model", encoder)}
    return [
        _pair(
            f"{start}_{name.replace('.', '_')}",
            layer.in_features,
            layer.out_features,
            names=("lora_down", "lora_up"),
            alpha=True,
        )
        for start, network in names.items()
        for name, layer in _linears(network, "to_q", "to_k", "to_v", "to_out.0", "q_proj", "out_proj", "fc1")
    ]


_WAN = {
    "attn1.to_": "self_attn.",
    "attn2.to_": "cross_attn.",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}


def _original_wan(pipe: Any, *, alpha: bool = False, separator: str = ".") -> list[_Keys]:
    found = []
    for name, layer in _linears(pipe.transformer, "to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2"):
        if not name.startswith("blocks."):
            continue
        for ours, theirs in _WAN.items():
            name = name.replace(ours, theirs)
        name = name.replace("attn.out.0", "attn.o")
        start = "diffusion_model." if separator == "." else "lora_unet_"
        key = start + name.replace(".", separator)
        found.append(
            _pair(key, layer.in_features, layer.out_features, names=("lora_down", "lora_up"), alpha=alpha)
        )
    return found


def _xlabs(pipe: Any) -> list[_Keys]:
    found = []
    for at in range(len(pipe.transformer.transformer_blocks)):
        width = pipe.transformer.transformer_blocks[at].attn.to_q.in_features
        for part, out in {
            "qkv_lora1": 3 * width,
            "qkv_lora2": 3 * width,
            "proj_lora1": width,
            "proj_lora2": width,
        }.items():
            found.append(_pair(f"double_blocks.{at}.processor.{part}", width, out, names=("down", "up")))
    return found


def _kohya_flux(pipe: Any) -> list[_Keys]:
    found = []
    for at, block in enumerate(pipe.transformer.transformer_blocks):
        width = block.attn.to_q.in_features
        key = f"lora_unet_double_blocks_{at}"
        for part, out in {
            "img_attn_qkv": 3 * width,
            "txt_attn_qkv": 3 * width,
            "img_attn_proj": width,
        }.items():
            found.append(_pair(f"{key}_{part}", width, out, names=("lora_down", "lora_up"), alpha=True))
    return found


def _with_ends(*ends: str) -> Others:
    """Return what puts other weights next to those of a layer."""

    def others(layer: _Keys) -> _Keys:
        key = next(iter(layer)).rsplit(".", 2)[0]
        return {f"{key}.{end}": _random(4) for end in ends}

    return others


def _of_wan(layer: _Keys) -> _Keys:
    block = ".".join(next(iter(layer)).split(".")[:3])
    return {
        f"{block}.norm3.diff": _random(4),
        f"{block}.norm3.diff_b": _random(4),
        f"{block}.diff_m": _random(1, 6, 4),
        "diffusion_model.patch_embedding.diff": _random(4, 4),
        "diffusion_model.time_projection.1.diff_b": _random(4),
    }


DIALECTS = {
    "peft": Dialect(
        model="wan",
        layers=_peft,
        others=_with_ends("dora_scale", "diff", "alpha", "hada_w1_a"),
        biases="lora_B.bias",
    ),
    "kohya": Dialect(
        model="sd", layers=_kohya, others=_with_ends("dora_scale", "diff", "diff_b", "scale_weight")
    ),
    "original Wan": Dialect(model="wan", layers=_original_wan, others=_of_wan, biases="diff_b"),
    "XLabs": Dialect(model="flux", layers=_xlabs, others=_with_ends("dora_scale", "extra.weight")),
    "kohya for Flux": Dialect(
        model="flux", layers=_kohya_flux, others=_with_ends("dora_scale", "diff", "diff_b", "lora_mid.weight")
    ),
    "musubi": Dialect(
        model="wan",
        layers=lambda pipe: _original_wan(pipe, alpha=True, separator="_"),
        others=_with_ends("dora_scale", "diff_b"),
        is_whole=True,
    ),
}
