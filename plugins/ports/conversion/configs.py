"""In: names and shapes of a network's tensors, and what the user says. Out: its config, and the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.text import setting
from framefleet.plugins.ports.conversion.checkpoint import Checkpoint
from framefleet.plugins.ports.conversion.plan import Network, Origin

_Shapes = Mapping[str, Tensor]  # tensors without values
Config = dict[str, Any]
# What no tensor's shape tells. None where the sizes are none of a released model: the user has to say it.
UNTOLD = ("num_attention_heads", "attention_head_dim", "norm_num_groups")


def size_of(shapes: _Shapes, name: str, dims: int) -> tuple[int, ...]:
    """Return the shape of a tensor. Raises KeyError, and ValueError for another number of dimensions."""
    shape = tuple(shapes[name].shape)
    if len(shape) != dims:
        raise ValueError(f"{name} has shape {shape}, not one of {dims} dimensions")
    return shape


def count_below(shapes: _Shapes, stem: str) -> int:
    """Return how many numbered parts there are, "layers." for layers.0.weight. Raises KeyError for none."""
    numbers = {name[len(stem) :].split(".")[0] for name in shapes if name.startswith(stem)}
    last = max((int(number) for number in numbers if number.isdecimal()), default=None)
    if last is None:
        raise KeyError(f"{stem}0")
    return last + 1


def whole_parts(total: int, part: int) -> int | None:
    """Return how many parts there are, or None for a rest."""
    return total // part if total >= part and total % part == 0 else None


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """One network of the original. prefix: of its names. config: from shapes. make: from a config.

    origins: from our names and shapes, without the prefix.
    """

    prefix: str
    config: Callable[[_Shapes], Config]
    origins: Callable[[list[str], _Shapes], dict[str, Origin]]
    make: Callable[..., nn.Module]

    def inferred(self, component: str, checkpoint: Checkpoint) -> Config:
        """Return the config that its tensors tell. Raises ModelError with the checkpoint's names."""
        shapes = checkpoint.below(self.prefix)
        try:
            return self.config(shapes)
        except KeyError as error:
            missing = f"{self.prefix}{error.args[0] if shapes else '*'}"
            raise ModelError(
                f"{checkpoint.path} has no complete {component}: {missing} is missing",
                "give the checkpoint with all parts",
            ) from error
        except ValueError as error:
            raise ModelError(
                f"{checkpoint.path}: {component}: {self.prefix}{error}",
                "the file may be of another model, or broken: fetch it again",
            ) from error

    def network(self, component: str, config: Config, checkpoint: Checkpoint) -> Network:
        """Return the network on the meta device, and where its tensors come from."""
        try:
            with torch.device("meta"):
                module = self.make(**config)
        except (TypeError, ValueError, RuntimeError, ArithmeticError, StrictDataclassError) as error:
            raise ModelError(
                f"{checkpoint.path}: no {component} can have the sizes of its tensors: {error}",
                f"check what `--set {component}...` says, or fetch the file again",
            ) from error
        origins = self.origins(list(module.state_dict()), checkpoint.below(self.prefix))
        return Network(
            module=module, origins={name: origin.behind(self.prefix) for name, origin in origins.items()}
        )


def settled(configs: Mapping[str, Config], given: Mapping[str, Any], *, place: str) -> dict[str, Config]:
    """Return configs by component with what the user gave in it, as "vae.norm_num_groups", in its place.

    Raises ModelError for what no component has, and for what neither tensors nor the user tell.
    """
    settings = [f"{component}.{key}" for component, config in configs.items() for key in config]
    for name in given:
        if name not in settings:
            raise ModelError(f"--set {name}: {place} has no such setting", did_you_mean(name, settings))
    merged = {
        component: {key: given.get(f"{component}.{key}", value) for key, value in config.items()}
        for component, config in configs.items()
    }
    untold = [
        f"{component}.{key}"
        for component, config in merged.items()
        for key in UNTOLD
        if key in config and config[key] is None
    ]
    if untold:
        raise ModelError(
            f"{place}: no tensor shows {', '.join(untold)}, and its sizes are none of a released model",
            f"say it with {' '.join(setting(name, '...') for name in untold)}",
        )
    return merged
