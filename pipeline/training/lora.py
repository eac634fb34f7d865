"""LoRAs: adapters into modules before they are trained, and one file's tensors out of them after.

peft makes and names the adapters; the file is as diffusers' `load_lora_weights` and a job's `loras:` take it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.training.freezing import is_lora
from framefleet.pipeline.training.settings import LoraSettings
from framefleet.pipeline.training.world import whole_tensor

_ADAPTER = "trained"


def add_lora(pipe: Any, components: Mapping[str, nn.Module], settings: LoraSettings, *, seed: int) -> None:
    """Add adapters to components of `pipe`, in fp32; at the start they change nothing.

    seed: of their values. Raises JobError where there is nothing to adapt, or nothing would load the file.
    """
    if not hasattr(pipe, "load_lora_weights"):
        raise JobError(f"train.lora: {type(pipe).__name__} takes no LoRAs", "train the weights themselves")
    for name, module in components.items():
        network: Any = module
        _check_targets(name, module, settings.targets)
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha or settings.rank, target_modules=settings.targets
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network.add_adapter(config, _ADAPTER)
        for key, weight in module.named_parameters():
            if is_lora(key):
                weight.data = weight.data.float()


def lora_file(components: Mapping[str, nn.Module], settings: LoraSettings) -> dict[str, Tensor]:
    """Return the adapters' tensors under the names that diffusers gives them in a file.

    Their scale is in them: a file that says nothing of alpha is loaded with a scale of 1. The second
    transformer of Wan 2.2 is a `transformer` there too; who loads it says where it belongs.
    """
    scale = (settings.alpha or settings.rank) / settings.rank
    tensors = {}
    for name, module in components.items():
        own = {key: whole_tensor(weight) for key, weight in module.state_dict().items() if is_lora(key)}
        for key, weight in get_peft_model_state_dict(module, own, adapter_name=_ADAPTER).items():
            scaled = weight * scale if ".lora_B." in key else weight
            tensors[f"{name.removesuffix('_2')}.{key}"] = scaled.detach().cpu().contiguous()
    return tensors


def _check_targets(component: str, module: nn.Module, targets: list[str]) -> None:
    """Raise JobError for an end of names that no linear layer or convolution has."""
    layers = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = sorted({_end(name) for name in layers})
            raise JobError(
                f"train.lora.targets: no layer of {component} is called {target!r}",
                f"use ends of names of its layers: {', '.join(known)}",
            )


def _end(name: str) -> str:
    """Return the last word of a name, and where that is a number the word before it too."""
    words = name.split(".")
    return ".".join(words[-2:]) if words[-1].isdigit() else words[-1]
