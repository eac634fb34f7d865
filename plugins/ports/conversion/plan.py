"""How a checkpoint becomes a pipeline folder, as values; and the check that every tensor finds its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor, nn

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.leftovers import check_scales, listed
from framefleet.plugins.ports.conversion.checkpoint import Checkpoint


def unchanged(tensor: Tensor) -> Tensor:
    return tensor


def as_linear(weight: Tensor, *, dims: int) -> Tensor:
    """(O, I, 1, ...), of a convolution of this many dimensions that sees one place, -> (O, I)."""
    return weight.reshape(weight.shape[:2]) if weight.shape[2:] == (1,) * dims else weight


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
        """Return it with a prefix before the checkpoint's names."""
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


class Saved(Protocol):
    """A scheduler, a tokenizer: what writes itself into a folder."""

    def save_pretrained(self, folder: str) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What a checkpoint becomes.

    variant: which of the known models it is. pipeline: its class. networks, others: the components by name.
    settings: entries of model_index.json besides them. ignored: names of tensors that nothing needs.
    """

    variant: str
    pipeline: type
    networks: Mapping[str, Network]
    others: Mapping[str, Saved]
    settings: Mapping[str, Any] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()


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
    problems = list(_problems(conversion, set(checkpoint.shapes)))
    if problems:
        raise ModelError(
            f"{place} has {'; and '.join(problems)}",
            "name another variant with --variant, if it is one; else this checkpoint is none that is known",
        )
    for component, network in conversion.networks.items():
        for name, like in network.module.state_dict().items():
            _check_shape(f"{place}: {component}", network.origins[name], name, like, checkpoint)


def _problems(conversion: Conversion, present: set[str]) -> Iterator[str]:
    """Yield which tensors are missing in each component, and which are too many."""
    used: set[str] = set()
    for component, network in conversion.networks.items():
        needed = {name for origin in network.origins.values() for name in origin.names}
        used |= needed
        if needed - present:
            yield f"no tensors that are called {listed(needed - present)}, of which its {component} is made"
    unknown = present - used - conversion.ignored
    if unknown:
        yield f"tensors that are not known: {listed(unknown)}"


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
