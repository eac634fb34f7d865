"""Flatten nested arguments and outputs of a module into leaves, and put them together again.

Covers tuples, lists, dicts and the output classes of diffusers and transformers (ordered dicts that are
dataclasses); on request also objects that only hold such values, e.g. key-value caches. Everything else is a
leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from torch import Tensor

# Types of most leaves, recognized at once.
_LEAVES = frozenset({Tensor, type(None), bool, int, float, str})
# A cache holds layers, and these hold tensors in a list: four levels. Deeper objects are not caches.
_DEPTH = 6


def flatten(
    value: Any, *, is_leaf: Callable[[Any], bool] | None = None, holders: list[Any] | None = None
) -> tuple[list[Any], Hashable]:
    """Return the leaves in order, and a structure that is equal for equally nested values.

    is_leaf: called with each list and tuple; if True, it is a leaf. holders: if set, objects that only hold
    values (see `is_holder`) are flattened too, and the outermost of them added to it.
    """
    leaves: list[Any] = []
    return leaves, _structure(value, leaves, is_leaf, holders)


def unflatten(structure: Any, leaves: Iterable[Any]) -> Any:
    """Put `leaves` back into the nesting that `flatten` described."""
    left = iter(leaves)
    if structure is None:
        return next(left)
    kind, keys, parts = structure
    return rebuilt((kind, keys), [unflatten(part, left) for part in parts])


def children_of(value: Any) -> tuple[Hashable, list[Any]] | None:
    """Return the node for `rebuilt`, and the children one level below; None for a leaf."""
    if isinstance(value, dict):
        return (type(value), tuple(value)), list(value.values())
    if isinstance(value, tuple | list):
        return (type(value), None), list(value)
    if type(value) not in _LEAVES and is_holder(value):
        return (type(value), tuple(vars(value))), list(vars(value).values())
    return None


def rebuilt(node: Any, children: list[Any]) -> Any:
    """Return a value like the one that `children_of` took apart, with these children."""
    kind, keys = node
    if keys is None:
        return kind(*children) if hasattr(kind, "_fields") else kind(children)
    pairs = dict(zip(keys, children, strict=True))
    if issubclass(kind, dict):
        return kind(**pairs) if hasattr(kind, "__dataclass_fields__") else kind(pairs)
    made = object.__new__(kind)
    vars(made).update(pairs)
    return made


def is_holder(value: Any) -> bool:
    """Return whether this object equals only itself, and holds nothing but plain values and tensors."""
    kind: Any = type(value)
    by_itself = kind.__hash__ is None or kind.__hash__ is object.__hash__
    has_all_in_dict = kind.__new__ is object.__new__ and bool(getattr(value, "__dict__", None))
    return by_itself and has_all_in_dict and not callable(value) and _is_held(value, _DEPTH)


def _is_held(value: Any, depth: int) -> bool:
    if type(value) in _LEAVES or isinstance(value, Tensor):
        return True
    if not depth:
        return False
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        if callable(value) or not hasattr(value, "__dict__"):
            return False
        value = vars(value).values()
    return all(_is_held(child, depth - 1) for child in value)


def _structure(
    value: Any, leaves: list[Any], is_leaf: Callable[[Any], bool] | None, holders: list[Any] | None
) -> Hashable:
    if type(value) not in _LEAVES:
        if isinstance(value, dict):
            keys, parts = tuple(value), value.values()
            return (type(value), keys, tuple([_structure(part, leaves, is_leaf, holders) for part in parts]))
        if isinstance(value, tuple | list):
            if is_leaf is None or not is_leaf(value):
                return (type(value), None, tuple([_structure(p, leaves, is_leaf, holders) for p in value]))
        elif holders is not None and is_holder(value):
            holders.append(value)
            keys, parts = tuple(vars(value)), vars(value).values()
            return (type(value), keys, tuple([_structure(part, leaves, is_leaf, []) for part in parts]))
    leaves.append(value)
    return None
