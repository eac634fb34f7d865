"""How a checkpoint becomes a pipeline folder: its networks, their configs, and the origin of each tensor.

Also checks that every tensor is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from framefleet.api.errors import ModelError, count_text, shown
from framefleet.api.texts import did_you_mean
from framefleet.pipeline.errors import setting
from framefleet.pipeline.model.sources.leftovers import check_scales, listed
from framefleet.pipeline.model.sources.verified_folder import bounded_modules
from framefleet.plugins.ports.conversion.checkpoint import Checkpoint

TensorShapes = Mapping[str, Tensor]  # tensors without values


def unchanged(tensor: Tensor) -> Tensor:
    return tensor


def as_linear(weight: Tensor, *, dims: int) -> Tensor:
    """(O, I, 1, ...), of a convolution of this many dimensions that sees one place, -> (O, I)."""
    return weight.reshape(weight.shape[:2]) if weight.shape[2:] == (1,) * dims else weight


def third(tensor: Tensor, *, i: int) -> Tensor:
    """(3 * O, ...), of queries, keys and values in one, -> (O, ...)."""
    return tensor.chunk(3)[i]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where one tensor of the result comes from.

    name: in the checkpoint. more: others that it is made of too. change: what becomes of them; must work on
    the meta device.
    """

    name: str
    more: tuple[str, ...] = ()
    change: Callable[..., Tensor] = unchanged

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.more)

    def behind(self, prefix: str) -> Origin:
        return replace(self, name=prefix + self.name, more=tuple(prefix + name for name in self.more))

    def take(self, read: Callable[[str], Tensor]) -> Tensor:
        """Return the changed tensor. read: gives a tensor of the checkpoint."""
        return self.change(*(read(name) for name in self.names))


def same_names(names: Iterable[str], shapes: Mapping[str, Tensor]) -> dict[str, Origin]:
    """Return where each tensor comes from when the checkpoint names them alike."""
    return {name: Origin(name=name) for name in names}


def renamed(name: str, rules: Iterable[tuple[str, Any]]) -> str:
    """Return a name after all rules, patterns with replacements, each on what the one before left."""
    for pattern, theirs in rules:
        name = re.sub(pattern, theirs, name)
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One component with weights. module: on the meta device. origins: of its tensors, by their names."""

    module: nn.Module
    origins: Mapping[str, Origin]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What a checkpoint becomes.

    variant: which of the known models it is. pipeline: its class. networks: its components with weights.
    others: those without, which have `save_pretrained`. ignored: names of tensors that nothing needs.
    """

    variant: str
    pipeline: type
    networks: Mapping[str, Network]
    others: Mapping[str, Any]
    ignored: frozenset[str]


class Converter(Protocol):
    """Knows one family of checkpoints.

    Returns None for those of others. Raises ModelError for one of its own that it cannot convert, or whose
    variant must be named. variant: as the user named it, None to recognise it. given: values of configs, by
    component and key as "vae.norm_num_groups", that go before what the tensors tell.
    """

    def __call__(
        self, checkpoint: Checkpoint, *, variant: str | None, given: Mapping[str, Any]
    ) -> Conversion | None: ...


def check(conversion: Conversion, checkpoint: Checkpoint) -> None:
    """Raise ModelError unless each tensor of the checkpoint is used or known to be of no use, each tensor of
    the result has an origin, and all shapes agree."""
    place = f"{checkpoint.path} as {conversion.variant}"
    check_scales(place, checkpoint.shapes)
    present, used, problems = set(checkpoint.shapes), set[str](), list[str]()
    for component, network in conversion.networks.items():
        needed = {name for origin in network.origins.values() for name in origin.names}
        used |= needed
        if lost := needed - present:
            problems.append(f"no tensors {listed(lost)}, which its {component} needs")
    if unknown := present - used - conversion.ignored:
        problems.append(f"unknown tensors: {listed(unknown)}")
    if problems:
        raise ModelError(
            f"{place} has {'; and '.join(problems)}",
            "if it is another variant, name it with --variant; otherwise this checkpoint is not supported",
        )
    for component, network in conversion.networks.items():
        for name, like in network.module.state_dict().items():
            _check_shape(f"{place}: {component}", network.origins[name], name, like, checkpoint)


def _check_shape(place: str, origin: Origin, name: str, like: Tensor, checkpoint: Checkpoint) -> None:
    try:
        fits = origin.take(checkpoint.shapes.__getitem__).shape == like.shape
    except (RuntimeError, IndexError):  # of torch, about shapes that cannot be cut or joined so
        fits = False
    if not fits:
        shapes = " and ".join(f"{n} has shape {tuple(checkpoint.shapes[n].shape)}" for n in origin.names)
        raise ModelError(
            f"{place}: {shapes}, but {name}, which is made of it, is {tuple(like.shape)}",
            "the file may be of another model, or broken: fetch it again",
        )


Config = dict[str, Any]
# What no tensor's shape shows. None if the sizes match no released model: the user has to give it.
UNTOLD = ("num_attention_heads", "attention_head_dim", "norm_num_groups")
_MAX_NUMBERED = 10_000  # the largest models have some hundred layers


def size_of(shapes: TensorShapes, name: str, dims: int) -> tuple[int, ...]:
    """Return the shape of a tensor. Raises KeyError, and ValueError for other dimensions or no values."""
    shape = tuple(shapes[name].shape)
    if len(shape) != dims:
        raise ValueError(f"{name} has shape {shape}, not one of {count_text(dims, 'dimension')}")
    if 0 in shape:
        raise ValueError(f"{name} has shape {shape}, and so no values")
    return shape


def count_below(shapes: TensorShapes, stem: str) -> int:
    """Return how many numbered parts there are, "layers." for layers.0.weight.

    Raises KeyError for none, and ValueError for more than any network has.
    """
    numbers = {name[len(stem) :].split(".")[0] for name in shapes if name.startswith(stem)}
    last = max((int(number) for number in numbers if number.isdecimal()), default=None)
    if last is None:
        raise KeyError(f"{stem}0")
    if last >= _MAX_NUMBERED:
        raise ValueError(f"{stem}{shown(last)} is there, and no network has {_MAX_NUMBERED:,} such parts")
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
    config: Callable[[TensorShapes], Config]
    origins: Callable[[list[str], TensorShapes], dict[str, Origin]]
    make: Callable[..., nn.Module]

    def inferred(self, component: str, checkpoint: Checkpoint) -> Config:
        """Return the config that its tensors imply. Raises ModelError with the checkpoint's names."""
        shapes = checkpoint.below(self.prefix)
        try:
            return self.config(shapes)
        except KeyError as error:
            missing = f"{self.prefix}{error.args[0] if shapes else '*'}"
            raise ModelError(
                f"{checkpoint.path} has no complete {component}: {missing} is missing",
                "use the checkpoint with all parts",
            ) from error
        except ValueError as error:
            raise ModelError(
                f"{checkpoint.path}: {component}: {self.prefix}{error}",
                "the file may be of another model, or broken: fetch it again",
            ) from error

    def network(self, component: str, config: Config, checkpoint: Checkpoint) -> Network:
        """Return the network on the meta device, and where its tensors come from."""
        try:
            with bounded_modules(checkpoint.path), torch.device("meta"):
                module = self.make(**config)
            origins = self.origins(list(module.state_dict()), checkpoint.below(self.prefix))
        except (
            TypeError,
            ValueError,
            LookupError,
            RuntimeError,
            ArithmeticError,
            StrictDataclassError,
        ) as error:
            raise ModelError(
                f"{checkpoint.path}: no {component} can have the sizes of its tensors: {error}",
                f"check what `--set {component}...` says, or fetch the file again",
            ) from error
        return Network(
            module=module, origins={name: origin.behind(self.prefix) for name, origin in origins.items()}
        )


def settled(configs: Mapping[str, Config], given: Mapping[str, Any], *, place: str) -> dict[str, Config]:
    """Return configs by component with what the user gave in it, e.g. "vae.norm_num_groups", in its place.

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
            f"{place}: no tensor shows {', '.join(untold)}, and its sizes match no released model",
            f"say it with {' '.join(setting(name, '...') for name in untold)}",
        )
    return merged
