"""Chooses the weights to train by patterns of their names, or adds adapters, and freezes all others.

peft makes and names the adapters; diffusers' `load_lora_weights` and a job's `loras:` read their file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.api.errors import JobError
from framefleet.api.models import is_denoiser
from framefleet.api.texts import nearest
from framefleet.plugins.train.job import LoraSettings, TrainSettings
from framefleet.plugins.train.world import weights_by_name, whole_tensor

_COMPONENTS = {"autoencoder": "vae", "text_encoder": "text_encoder"}
_ADAPTER = "trained"


def choose_parameters(
    trained: Mapping[str, nn.Module], only: Sequence[str] = (), freeze: Sequence[str] = (), lora: bool = False
) -> dict[str, nn.Parameter]:
    """Return the weights to train, by name as in `weights_by_name`; freeze the others.

    trained: components by name. only, freeze: of the job; see `matching_names`. lora: only adapters.
    """
    weights = weights_by_name(trained)
    heads = {name.partition(".")[0] for name in weights}
    freeze = [one for one in freeze if (head := one.removesuffix(".*")) in heads or not is_denoiser(head)]
    names = set(matching_names(weights, only=only, freeze=freeze))
    chosen = {name: w for name, w in weights.items() if name in names and (is_lora(name) or not lora)}
    if not chosen:
        raise JobError("train: no weights are left to train", "change `only`, `freeze` or `lora.targets`")
    for name, weight in weights.items():
        weight.requires_grad_(name in chosen)
    return chosen


def matching_names(names: Iterable[str], *, only: Sequence[str], freeze: Sequence[str]) -> list[str]:
    """Return the names that a pattern of `only` matches, where there is one, and none of `freeze`.

    A pattern may use * and stands for all below it too. Raises JobError for one that matches nothing.
    """
    names = list(names)
    for setting, patterns in (("only", only), ("freeze", freeze)):
        for pattern in patterns:
            if not any(_matches(name, pattern) for name in names):
                wanted = pattern.rstrip(".*")  # those that may be meant are as deep, and most like it
                stems = (".".join(name.split(".")[: wanted.count(".") + 1]) for name in names)
                near = nearest(wanted, dict.fromkeys(stems), most=3, cutoff=0.0)
                problem = f"train.{setting}: {pattern!r} matches no weight of the model"
                raise JobError(problem, f"the nearest are {', '.join(near)}")
    return [name for name in names if (not only or matches_any(name, only)) and not matches_any(name, freeze)]


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern stands for a name, or for something above it."""
    return any(_matches(name, pattern) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def is_lora(name: str) -> bool:
    """Whether a weight is an adapter's, as peft names them."""
    return ".lora_" in name


def trained_component(settings: TrainSettings, components: Iterable[str]) -> str:
    """Return which of a pipeline's components is trained. Raises JobError for none, and for two denoisers."""
    present = list(components)
    if settings.part != "denoiser":
        names = [name for name in present if name == _COMPONENTS[settings.part]]
    else:
        names = sorted(name for name in present if is_denoiser(name))
    if not names:
        raise JobError(
            f"train.part is {settings.part}, but the model has none", f"it has {', '.join(present)}"
        )
    # Those of which the patterns leave anything to train.
    heads = [pattern.partition(".")[0] for pattern in settings.only]
    frozen = [pattern.removesuffix(".*") for pattern in settings.freeze]
    chosen = names
    if len(names) > 1:
        chosen = [n for n in names if (not heads or matches_any(n, heads)) and not matches_any(n, frozen)]
    if len(chosen) != 1:
        raise JobError(
            f"train: one job trains one denoiser, but the model has {', '.join(names)}",
            "set `only: [transformer]` for high noise, `only: [transformer_2]` for low; run a job for each",
        )
    return chosen[0]


def add_lora(pipe: Any, components: Mapping[str, nn.Module], settings: LoraSettings, *, seed: int) -> None:
    """Add adapters to components of `pipe`, in fp32; at the start they change nothing.

    seed: of their values. Raises JobError where there is nothing to adapt, or nothing would load the file.
    """
    from peft import LoraConfig  # which takes seconds

    if not hasattr(pipe, "load_lora_weights"):
        raise JobError(f"train.lora: {type(pipe).__name__} takes no LoRAs", "train the weights themselves")
    for name, module in components.items():
        network: Any = module
        layers = [key for key, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        for target in settings.targets:
            if not any(key == target or key.endswith(f".{target}") for key in layers):
                # The last word of a name, and where that is a number the word before it too.
                split = (key.split(".") for key in layers)
                ends = sorted(
                    {".".join(words[-2:] if words[-1].isdigit() else words[-1:]) for words in split}
                )
                raise JobError(
                    f"train.lora.targets: no layer of {name} is called {target!r}",
                    f"use ends of names of its layers: {', '.join(ends)}",
                )
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
    from peft import get_peft_model_state_dict

    scale = (settings.alpha or settings.rank) / settings.rank
    tensors = {}
    for name, module in components.items():
        own = {key: whole_tensor(weight) for key, weight in module.state_dict().items() if is_lora(key)}
        for key, weight in get_peft_model_state_dict(module, own, adapter_name=_ADAPTER).items():
            scaled = weight * scale if ".lora_B." in key else weight
            tensors[f"{name.removesuffix('_2')}.{key}"] = scaled.detach().cpu().contiguous()
    return tensors
