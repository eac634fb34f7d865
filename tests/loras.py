"""LoRAs for the tiny pipelines, saved by diffusers itself, and tables whose rows use them."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn

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
