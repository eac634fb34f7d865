"""The state of networks besides weights: attributes, buffers and hooks of all submodules, and their objects.

It is saved, restored and (except for hooks) compared. Not covered: state in closures, classes and Python
modules.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framefleet.pipeline.hooks.intercept import Interception
from framefleet.pipeline.model.options.step_cache import hooks_of
from framefleet.pipeline.model.own_pipeline import OwnPipelines

# Set by torch, by hooks of diffusers and accelerate, and by `intercept`.
_NOT_ITS_OWN = {*vars(nn.Module()), "forward", "_hf_hook", "_old_forward", "_diffusers_hook"}
# Restored with the rest: transformers adds hooks in a first forward, and notes that in an attribute.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
_VALUES = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))
_PLAIN, _WHOLE = frozenset(_VALUES), (nn.Module, type, *_VALUES)  # their parts are not compared
_COLLECTIONS = (dict, list, tuple)
# Levels of objects in objects: attention processors have one, caches of tensors in them three.
_DEPTH = 4
Marks = tuple[Any, int, tuple["Marks", ...]]  # (value, version, ()), or (type, size, parts)
Spot = tuple[str, str]  # a submodule, and the name of its attribute or buffer
_Held = dict[Any, Any]


@dataclass(frozen=True, slots=True)
class _Part:
    """The state of one module. hooks: by the names of their dictionaries."""

    attributes: _Held
    buffers: _Held
    hooks: dict[str, _Held]


class NetworkState:
    """The state of a network at one time, without buffers that an offload moves like weights."""

    def __init__(self, network: nn.Module) -> None:
        self._modules = list(network.modules())
        parts = _parts(self._modules)
        values = []
        for part in parts:
            # torch cannot copy results of a graph (weight norm). Copies should not use GPU memory.
            attributes = {
                name: value.detach() if isinstance(value, Tensor) and value.grad_fn else value
                for name, value in part.attributes.items()
            }
            buffers = {name: b if b is None else b.cpu() for name, b in part.buffers.items()}
            values.append((attributes, buffers))
        self._kept = OwnPipelines(SimpleNamespace(parts=values), tells=False).make()
        self._hooks = [part.hooks for part in parts]

    def has_its_hooks(self) -> bool:
        """Return whether its modules have exactly the hooks that they had then."""
        return all(
            vars(module)[name] == then
            for module, hooks in zip(self._modules, self._hooks, strict=True)
            for name, then in hooks.items()
        )

    def restore(self) -> None:
        """Restore what has changed, from copies, because it may change again."""
        for module, part in zip(self._modules, self._copies(), strict=True):
            now = _own(module)
            for name in now.keys() - part.attributes.keys():
                del vars(module)[name]
            _put(module, _changes(part, _part_of(module)))

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore the state for the block, and afterwards the state before the block."""
        pairs = zip(_parts(self._modules), self._copies(), strict=True)
        before = [_changes(now, then) for now, then in pairs]
        self.restore()
        try:
            yield
        finally:
            self.restore()  # also undoes changes in place by the block
            for module, part in zip(self._modules, before, strict=True):
                _put(module, part)

    def _copies(self) -> list[_Part]:
        own = OwnPipelines(self._kept, tells=False).make()
        pairs = zip(own.parts, self._hooks, strict=True)
        return [_Part(attributes, buffers, hooks) for (attributes, buffers), hooks in pairs]


def state_of(network: nn.Module, without: Collection[nn.Module] = ()) -> dict[Spot, Marks]:
    """Return the marks of each attribute and buffer, by its place in the network."""
    marks: dict[Spot, Marks] = {}
    for path, module in network.named_modules():
        if module in without:
            continue
        for values in (vars(module), module._buffers):
            for name, value in values.items():
                if _is_its_own(name, value):
                    marks[path, name] = marks_of(value)
    return marks


def marks_agree(before: Marks | None, after: Marks | None) -> bool:
    if before is None or after is None:
        return False
    (one, version, parts), (other, new_version, new_parts) = before, after
    if len(parts) != len(new_parts):
        return False
    if version != new_version if one is other else not _is_equal(one, other):
        return False
    return all(map(marks_agree, parts, new_parts))


def is_filled(before: Marks | None, after: Marks | None, *, may_grow: bool = False) -> bool:
    """Return whether a value is the same, or was only added to an empty place: a table made on first use.

    may_grow: it may also be longer: entries for new keys, a tensor with more rows.
    """
    if before is None or after is None or marks_agree(before, after):
        return after is not None
    (one, size, parts), (other, new_size, new_parts) = before, after
    if isinstance(one, Tensor):
        if not (may_grow and isinstance(other, Tensor) and one.ndim == other.ndim and one.ndim):
            return False
        is_longer = len(other) > len(one) and not one.is_meta and not other.is_meta
        return is_longer and _is_equal(one, other[: len(one)])
    is_collection = any(one is kind for kind in _COLLECTIONS)
    if one is None or (is_collection and not size):
        return True
    is_longer = may_grow and is_collection and new_size > size
    if one is not other or not parts or (new_size != size and not is_longer):
        return False
    if one is dict:  # its parts are first the keys, then the values
        new_parts = (*new_parts[: size // 2], *new_parts[new_size // 2 :][: size // 2])
    return all(is_filled(*pair, may_grow=may_grow) for pair in zip(parts, new_parts, strict=False))


def marks_of(value: Any, depth: int = _DEPTH) -> Marks:
    """Return marks that are equal as long as the value is: tensors and their versions, plain values, types.

    For arrays and random generators, the marks have their content.
    """
    if type(value) in _PLAIN:  # most are
        return value, 0, ()
    if isinstance(value, Tensor):
        if value.is_inference():  # torch does not count its changes, so values are compared
            return value.clone(), 0, ()
        return value, value._version, ()
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} ".encode() + value.tobytes(), 0, ()
    if isinstance(value, torch.Generator):
        return bytes(value.get_state().numpy()), 0, ()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state), 0, ()
    if isinstance(value, random.Random):
        return repr(value.getstate()), 0, ()
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset | deque):
        parts = list(value)
    elif isinstance(value, _WHOLE) or not hasattr(value, "__dict__"):
        return value, 0, ()
    else:
        parts = [*vars(value), *vars(value).values()]
    return type(value), len(parts), tuple(marks_of(part, depth - 1) for part in parts) if depth else ()


def is_shared(network: nn.Module, spot: Spot, others: Iterable[nn.Module]) -> bool:
    """Return whether other networks have the same module, or the same object in it."""
    path, name = spot
    module = network.get_submodule(path)
    modules, value = [inner for other in others for inner in other.modules()], vars(module).get(name)
    has_parts = value is not None and not isinstance(value, _WHOLE)
    return any(
        inner is module or (has_parts and any(value is own for own in vars(inner).values()))
        for inner in modules
    )


def _parts(modules: list[nn.Module]) -> list[_Part]:
    # Diffusers' group offload moves buffers. If it moves them to disk, it leaves tensors without values.
    is_moved = any("group_offloading" in hooks_of(module) for module in modules)
    return [_part_of(module, is_moved=is_moved) for module in modules]


def _part_of(module: nn.Module, *, is_moved: bool = False) -> _Part:
    buffers = {} if is_moved else dict(module._buffers)
    return _Part(_own(module), buffers, {name: dict(vars(module)[name]) for name in _HOOKS})


def _changes(wanted: _Part, now: _Part) -> _Part:
    """Return what differs in a part. The rest stays, because offloads and compiled code go by identity."""
    attributes, buffers = (
        {
            name: value
            for name, value in then.items()
            if name not in there or not marks_agree(marks_of(there[name]), marks_of(value))
        }
        for then, there in ((wanted.attributes, now.attributes), (wanted.buffers, now.buffers))
    )
    return _Part(attributes, buffers, wanted.hooks)


def _put(module: nn.Module, part: _Part) -> None:
    vars(module).update(part.attributes)
    for name, buffer in part.buffers.items():
        there = module._buffers.get(name)
        module._buffers[name] = buffer if there is None or buffer is None else buffer.to(there.device)
    for name, hooks in part.hooks.items():
        registered = vars(module)[name]  # the same dictionary: handles of hooks refer to it
        registered.clear()
        registered.update(hooks)


def _own(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if _is_its_own(name, value)}


def _is_its_own(name: str, value: Any) -> bool:
    return name not in _NOT_ITS_OWN and not isinstance(value, Interception)


def _is_equal(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):  # moved by an offload, or made again
        if (before.shape, before.dtype, before.is_meta) != (after.shape, after.dtype, after.is_meta):
            return False
        # Weights on the meta device are computed in a first forward, e.g. by weight norm.
        return before.is_meta or torch.equal(before.cpu(), after.cpu())
    return isinstance(before, _VALUES) and type(before) is type(after) and before == after
