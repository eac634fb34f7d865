"""What networks keep in themselves beside weights: attributes, buffers and hooks of all submodules, and what
the objects there hold. Compared (but for hooks), kept, and put back.

Not covered: state in closures, classes and modules of Python, and in arrays of NumPy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.pipeline.model.own_pipeline import OwnPipelines, own_pipeline

# What torch and hooks of diffusers and accelerate set, and `intercept`.
_NOT_ITS_OWN = {*vars(nn.Module()), "forward", "_hf_hook", "_old_forward", "_diffusers_hook"}
# Put back with the rest: transformers adds some in a first forward, and notes that in an attribute.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
_VALUES = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))
# Of objects in objects; attention processors are one deep, caches of tensors in them three.
_DEPTH = 4

Marks = list[Any]
_Held = dict[Any, Any]


@dataclass(frozen=True, slots=True)
class _Part:
    """What one module holds. hooks: by the names of their dictionaries."""

    attributes: _Held
    buffers: _Held
    hooks: dict[str, _Held]


class NetworkState:
    """What a network held in itself at one time."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        parts = _parts(network)
        kept = SimpleNamespace(parts=[(part.attributes, part.buffers) for part in parts])
        self._kept = OwnPipelines(kept, tells=False).make()
        self._hooks = [part.hooks for part in parts]

    def restore(self) -> None:
        """Put back what has changed, in copies: what is put back may change again."""
        held = zip(own_pipeline(self._kept).parts, self._hooks, strict=True)
        _put_all(self._network, [_Part(*own, hooks) for own, hooks in held])

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore it for a while, and then go on with what was there before."""
        before = _parts(self._network)
        self.restore()
        try:
            yield
        finally:
            _put_all(self._network, before)


def state_of(network: nn.Module, without: Collection[nn.Module] = ()) -> dict[str, Marks]:
    """Return what each attribute and buffer holds, by its place in the network."""
    found: dict[str, Marks] = {}
    for path, module in network.named_modules():
        if module in without:
            continue
        for name, value in {**_own(module), **module._buffers}.items():
            found[f"{path}.{name}" if path else name] = _marks_of(value)
    return found


def marks_agree(before: Marks | None, after: Marks | None) -> bool:
    """Whether a place of `state_of` holds what it did."""
    if before is None or after is None or len(before) != len(after):
        return False
    return all(_is_equal(*one, *other) for one, other in zip(before, after, strict=True))


def _parts(network: nn.Module) -> list[_Part]:
    return [
        _Part(_own(module), dict(module._buffers), {name: dict(vars(module)[name]) for name in _HOOKS})
        for module in network.modules()
    ]


def _put_all(network: nn.Module, parts: list[_Part]) -> None:
    for module, part in zip(network.modules(), parts, strict=True):
        _put(module, part)


def _put(module: nn.Module, part: _Part) -> None:
    """Let a module hold this, but leave what is equal as it is: hooks and compiled code go by identity."""
    now = _own(module)
    for name in now.keys() - part.attributes.keys():
        del vars(module)[name]
    for name, value in part.attributes.items():
        if name not in now or not marks_agree(_marks_of(now[name]), _marks_of(value)):
            vars(module)[name] = value
    for name, buffer in part.buffers.items():
        there = module._buffers[name]
        if not marks_agree(_marks_of(there), _marks_of(buffer)):
            module._buffers[name] = buffer if there is None or buffer is None else buffer.to(there.device)
    for name, hooks in part.hooks.items():
        known = vars(module)[name]  # the same dictionary: handles of hooks refer to it
        known.clear()
        known.update(hooks)


def _own(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _NOT_ITS_OWN}


def _marks_of(value: Any) -> Marks:
    return list(_marks(value, _DEPTH))


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


def _is_equal(before: Any, version: int, after: Any, new_version: int) -> bool:
    if before is after:
        return version == new_version
    if isinstance(before, Tensor) and isinstance(after, Tensor):  # moved by an offload, or made anew
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            return False
        return torch.equal(before.cpu(), after.cpu())
    return isinstance(before, _VALUES) and type(before) is type(after) and before == after
