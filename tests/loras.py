"""LoRAs for the tiny pipelines, saved by diffusers itself, and tables whose rows use them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from framefleet import Batching, Clip, Request, load_model
from framefleet.pipeline.model.specs.dtypes import torch_dtype
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.recipes.catalog import generate
from tests.tiny import SMALLEST, tiny
from tests.unaudited import unaudited

# By pipeline: two LoRAs that share some layers and not others, and differ in rank.
TARGETS: dict[str, dict[str, list[str]]] = {
    "wan": {"style": ["to_q", "to_v", "ffn.net.0.proj"], "detail": ["to_k", "to_v", "time_proj"]},
    "wan_moe": {"style": ["to_q", "to_v"], "detail": ["to_k", "to_v"]},
    "cogvideox": {"style": ["to_q", "to_k", "ff.net.2"], "detail": ["to_q", "norm1.linear", "proj_out"]},
    "sd": {"style": ["to_q", "conv1", "time_emb_proj"], "detail": ["to_k", "conv2", "to_out.0"]},
    "sdxl": {"style": ["to_q", "to_v"]},
    "qwen_image": {"style": ["to_q", "to_v", "img_mlp.net.2"]},
}
WEIGHTS: dict[str | None, dict[str, float]] = {
    None: {},
    "style": {"style": 1.0},
    "style:0.5": {"style": 0.5},
    "detail:-0.7": {"detail": -0.7},
    "style:0.8 + detail": {"detail": 1.0, "style": 0.8},
}
RANKS = {"style": 4, "detail": 3}
TEXT_TARGETS = {"style": ["q_proj", "fc1", "out_proj"]}  # of the CLIP beside a denoiser


def save_lora(model: str, name: str, folder: Path, **config: Any) -> Path:
    """Save LoRA `name` for a tiny pipeline; return its file. config: further settings of peft."""
    pipe = plain_pipe(model, torch.float32)
    denoiser = "unet" if hasattr(pipe, "unet") else "transformer"
    parts = {denoiser: TARGETS[model][name]}
    if model == "sd" and name in TEXT_TARGETS:
        parts["text_encoder"] = TEXT_TARGETS[name]
    given: dict[str, Any] = {}
    for seed, (part, targets) in enumerate(parts.items()):
        network = getattr(pipe, part)
        # twice the rank, so that the scale of the file's own description counts
        settings = LoraConfig(r=RANKS[name], lora_alpha=2 * RANKS[name], target_modules=targets, **config)
        network.add_adapter(settings, "saved")
        fill(network, seed=seed + len(name))
        given[f"{part}_lora_layers"] = get_peft_model_state_dict(network, adapter_name="saved")
        given[f"{part}_lora_adapter_metadata"] = settings.to_dict()
    type(pipe).save_lora_weights(folder, **given)
    return folder / "pytorch_lora_weights.safetensors"


def fill(network: nn.Module, *, seed: int) -> None:
    """Give every weight of an adapter a random value; peft starts with zeros, which change nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if ".lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 + ("magnitude" in name))


def plain_pipe(model: str, dtype: torch.dtype, loras: dict[str, Path] | None = None) -> Any:
    """Load a tiny pipeline and LoRAs as a script would."""
    class_name = json.loads((tiny(model) / "model_index.json").read_text())["_class_name"]
    pipe = getattr(diffusers, class_name).from_pretrained(tiny(model), dtype=dtype)
    for name, file in (loras or {}).items():
        with warnings.catch_warnings(action="ignore"):  # of a second one
            pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=f"my_{name}")
    return pipe


def lora_rows(model: str, loras: list[str | None]) -> list[Request]:
    """Rows that differ in prompt, steps, guidance and seed, with these cells of the column `lora`."""
    return [
        Request(
            arguments={
                **SMALLEST[model],
                "prompt": ("a red ball", "一只猫")[seed % 2],
                "num_inference_steps": 2 + seed % 2,
                "guidance_scale": (1.0, 4.0)[seed // 2 % 2],
                **({"lora": lora} if lora else {}),
            },
            seed=seed,
        )
        for seed, lora in enumerate(loras)
    ]


def plain_digest(pipe: Any, request: Request, weights: dict[str, float]) -> str:
    """What a script renders. weights: by LoRA, in the order of their names."""
    if weights:
        pipe.set_adapters([f"my_{name}" for name in weights], list(weights.values()))
    arguments = {name: value for name, value in request.arguments.items() if name != "lora"}
    return frames_sha256(to_frames(generate(pipe, replace(request, arguments=arguments))))


def clips_and_expected(
    model: str, dtype: Any, files: dict[str, Path], *, device: str
) -> tuple[list[Clip], dict[int, str]]:
    """Render a mixed table; return its clips, and by seed what plain diffusers renders row by row."""
    table = lora_rows(model, list(WEIGHTS) * 2)
    loaded = load_model(tiny(model), dtype=dtype, device=device, loras=files)
    outcomes = list(unaudited(loaded, Batching(max_rows=4, min_gain=0)).render(table))
    bare, adapted = (plain_pipe(model, torch_dtype(dtype), loras).to(device) for loras in ({}, files))
    expected = {}
    for request in table:
        weights = WEIGHTS[request.arguments.get("lora")]
        expected[request.seed] = plain_digest(adapted if weights else bare, request, weights)
    return [clip for clip in outcomes if isinstance(clip, Clip)], expected


RANK = 2
_Keys = dict[str, Tensor]
Others = Callable[[_Keys], _Keys]


# Keys of LoRAs as six programs write them: of random values, in shapes of the pipeline's own layers.
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
