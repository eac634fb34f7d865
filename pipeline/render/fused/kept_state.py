"""Networks that keep state in themselves from forward to forward: rows that take turns would mix it up.

Noticed around their first forwards, and put back to what it was before these: a row finds a new network.
Looked at: attributes and buffers of all submodules, and what the objects there hold. Not covered: state in
closures, classes and modules of Python, and in arrays of NumPy.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.pipeline.model.own_pipeline import OwnPipelines, own_pipeline

# Forwards of a network that are compared. State that matters changes at most steps; to look at one takes some
# 10 us for each submodule.
COMPARED = 12
# Shapes that are remembered: one that comes again is compared, for the first may fill tables that stay.
REMEMBERED = 100
# What torch and hooks of diffusers and accelerate set, and `intercept`.
_NOT_ITS_OWN = {*vars(nn.Module()), "forward", "_hf_hook", "_old_forward", "_diffusers_hook"}
_VALUES = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))
# Of objects in objects; attention processors are one deep, caches of tensors in them three.
_DEPTH = 4

Marks = list[Any]


class StateWatch:
    """Put around forwards of networks. found: the first attribute that one changed in itself, as a.b.c."""

    def __init__(self, switched: Collection[nn.Module] = ()) -> None:
        """switched: modules that are set for each row before they run, as LoRA layers are."""
        self.found: str | None = None
        self._switched = frozenset(switched)
        self._fresh: dict[str, _Fresh] = {}
        self._compared: dict[str, int] = {}
        self._shapes: set[Hashable] = set()

    @contextmanager
    def around(self, name: str, network: nn.Module, shape: Hashable) -> Iterator[None]:
        """Compare the network before and after the block, if a forward of that shape was there before.

        shape: begins with the network's name.
        """
        if name not in self._fresh:
            self._fresh[name] = _Fresh(network)
        if self.found or self._compared.get(name, 0) == COMPARED or not self._came_before(shape):
            yield
            return
        self._compared[name] = self._compared.get(name, 0) + 1
        before = _state_of(network, self._switched)
        yield
        after = _state_of(network, self._switched)
        changed = (path for path in {**before, **after} if not _are_equal(before.get(path), after.get(path)))
        self.found = next((f"{name}.{path}" for path in changed), None)

    def restore(self) -> None:
        """Put networks that keep state back to what they were before their first forward."""
        for fresh in self._fresh.values() if self.found else ():
            fresh.restore()

    def _came_before(self, shape: Hashable) -> bool:
        if shape in self._shapes:
            return True
        if len(self._shapes) < REMEMBERED:
            self._shapes.add(shape)
        return False


class _Fresh:
    """What a network held in itself at one time: attributes and buffers of each of its modules."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        parts = [(_own(module), dict(module._buffers)) for module in network.modules()]
        self._held = OwnPipelines(SimpleNamespace(parts=parts), tells=False).make()

    def restore(self) -> None:
        parts = own_pipeline(self._held).parts
        for module, (attributes, buffers) in zip(self._network.modules(), parts, strict=True):
            for name in _own(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)
            for name, buffer in buffers.items():
                now = module._buffers[name]
                module._buffers[name] = buffer if now is None or buffer is None else buffer.to(now.device)


def _own(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _NOT_ITS_OWN}


def _state_of(network: nn.Module, without: Collection[nn.Module]) -> dict[str, Marks]:
    """Return what each attribute and buffer holds, by its place in the network."""
    found: dict[str, Marks] = {}
    for path, module in network.named_modules():
        if module in without:
            continue
        for name, value in {**_own(module), **module._buffers}.items():
            found[f"{path}.{name}" if path else name] = list(_marks(value, _DEPTH))
    return found


def _marks(value: Any, depth: int) -> Iterator[Any]:
    """Yield pairs that are equal as long as the value is: tensors and their versions, plain values, kinds."""
    if isinstance(value, Tensor):
        yield value, value._version
        return
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, (nn.Module, type, *_VALUES)) or not hasattr(value, "__dict__"):
        yield value, 0
        return
    else:
        parts = [*vars(value), *vars(value).values()]
    yield type(value), len(parts)
    for part in parts if depth else ():
        yield from _marks(part, depth - 1)


def _are_equal(before: Marks | None, after: Marks | None) -> bool:
    if before is None or after is None or len(before) != len(after):
        return False
    return all(_is_equal(*one, *other) for one, other in zip(before, after, strict=True))


def _is_equal(before: Any, version: int, after: Any, new_version: int) -> bool:
    if before is after:
        return version == new_version
    if isinstance(before, Tensor) and isinstance(after, Tensor):  # moved by an offload, or made anew
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            return False
        return torch.equal(before.cpu(), after.cpu())
    return isinstance(before, _VALUES) and type(before) is type(after) and before == after
