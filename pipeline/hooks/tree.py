"""Nested arguments and outputs of a module: taken apart into leaves, and put together again.

Covers tuples, lists, dicts and the output classes of diffusers and transformers (ordered dicts that are
dataclasses). Everything else is a leaf.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any


def flatten(value: Any) -> tuple[list[Any], Hashable]:
    """Return the leaves in order, and a structure that is equal for equally nested values."""
    leaves: list[Any] = []
    return leaves, _structure(value, leaves)


def unflatten(structure: Any, leaves: list[Any]) -> Any:
    """Put `leaves` back into the nesting that `flatten` described."""
    return _build(structure, iter(leaves))


def _structure(value: Any, leaves: list[Any]) -> Hashable:
    if isinstance(value, dict):
        return (type(value), tuple(value), tuple(_structure(child, leaves) for child in value.values()))
    if isinstance(value, tuple | list):
        return (type(value), None, tuple(_structure(child, leaves) for child in value))
    leaves.append(value)
    return None


def _build(structure: Any, leaves: Iterator[Any]) -> Any:
    if structure is None:
        return next(leaves)
    kind, keys, parts = structure
    children = [_build(part, leaves) for part in parts]
    if keys is not None:
        pairs = dict(zip(keys, children, strict=True))
        return kind(**pairs) if hasattr(kind, "__dataclass_fields__") else kind(pairs)
    return kind(*children) if hasattr(kind, "_fields") else kind(children)
