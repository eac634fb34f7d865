"""How a checkpoint becomes a pipeline folder, as values; and the check that every tensor finds its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from framefleet.pipeline.conversion.checkpoint import Checkpoint
from framefleet.pipeline.errors import ModelError

SHOWN = 5  # names in one message; a wrong variant is off by hundreds


def unchanged(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where one tensor of the result comes from.

    name: in the checkpoint. more: others that it is made of too. change: what becomes of them; must work on
    the meta device. Dimensions of one at the end, which convolutions have where linear layers do not, are
    dropped without it.
    """

    name: str
    more: tuple[str, ...] = ()
    change: Callable[..., Tensor] = unchanged

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.more)

    def take(self, read: Callable[[str], Tensor], like: Tensor) -> Tensor:
        """Return the changed tensor, in the shape of `like` where that is a matter of ones at the end.

        read: gives a tensor of the checkpoint.
        """
        changed = self.change(*(read(name) for name in self.names))
        ones = (1,) * (changed.dim() - like.dim())
        return changed.reshape(like.shape) if ones and changed.shape == (*like.shape, *ones) else changed


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
    settings: entries of model_index.json beside them. ignored: names of tensors that nothing needs.
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
    variant must be named. variant: as the user named it, None to recognise it.
    """

    def __call__(self, checkpoint: Checkpoint, *, variant: str | None) -> Conversion | None: ...


def check(conversion: Conversion, checkpoint: Checkpoint) -> None:
    """Raise ModelError unless each tensor of the checkpoint is used or known to be of no use, each tensor of
    the result has an origin, and all shapes agree."""
    origins = [origin for network in conversion.networks.values() for origin in network.origins.values()]
    used = {name for origin in origins for name in origin.names}
    place = f"{checkpoint.path} as {conversion.variant}"
    _refuse(place, "tensors that are not known:", set(checkpoint.shapes) - used - conversion.ignored)
    _refuse(place, "no tensors that are called", used - set(checkpoint.shapes))
    for component, network in conversion.networks.items():
        _check_network(f"{place}: {component}", network, checkpoint)


def _check_network(place: str, network: Network, checkpoint: Checkpoint) -> None:
    wanted = network.module.state_dict()
    _refuse(place, "no tensors for", set(wanted) - set(network.origins))
    placeless = [origin.name for name, origin in network.origins.items() if name not in wanted]
    _refuse(place, "tensors that are not known:", placeless)
    for name, like in wanted.items():
        origin = network.origins[name]
        found = origin.take(checkpoint.shapes.__getitem__, like)
        if found.shape != like.shape:
            raise ModelError(
                f"{place}: {origin.name} has shape {tuple(found.shape)}, but {name} is {tuple(like.shape)}",
                "the file may be of another model, or broken: fetch it again",
            )


def _refuse(place: str, what: str, names: Iterable[str]) -> None:
    ordered = sorted(names)
    if not ordered:
        return
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    raise ModelError(
        f"{place} has {what} {', '.join(ordered[:SHOWN])}{more}",
        "name another variant with --variant, if it is one; else this checkpoint is not one that is known",
    )
