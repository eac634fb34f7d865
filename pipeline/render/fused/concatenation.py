"""Calls of several rows become one, and what it returns is split again, along declared or observed axes.

What is joined is seen by its size: the one dimension in which a tensor of `n` rows is `n` times that of a
one-row run. Also seen: one row more that is for all (Qwen-Image 2.1 adds a time of zero), and copies of what
is one in a one-row run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from framefleet.pipeline.hooks.tree import children_of, flatten, rebuilt, unflatten
from framefleet.pipeline.render.fused.calls import EACH, LIST, OWN, Axes, Call


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape and strides of a tensor in a one-row run."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, leaf: Any) -> Layout | None:
        return cls(tuple(leaf.shape), leaf.stride()) if isinstance(leaf, Tensor) else None

    def copy_of(self, tensor: Tensor, device: torch.device | None = None) -> Tensor:
        """Return a copy that is laid out so, in memory of its own."""
        dtype, device = tensor.dtype, device or tensor.device
        return torch.empty_strided(self.shape, self.strides, dtype=dtype, device=device).copy_(tensor)

    def fits(self, tensor: Tensor, axis: int | None = 0) -> bool:
        """Whether `tensor`, joined along `axis`, is laid out alike where one row has more than one value."""
        pairs = zip(self.shape, self.strides, tensor.stride(), strict=True)
        if not axis:
            return all(size == 1 or mine == theirs for size, mine, theirs in pairs)
        wide = [(mine, theirs) for size, mine, theirs in pairs if size > 1]
        return [theirs for _, theirs in sorted(wide, reverse=True)] == sorted(
            (s for _, s in wide), reverse=True
        )


class Joint(NamedTuple):
    """Where a tensor carries its rows: along `axis`."""

    axis: int
    shared: int = 0  # how many behind them are for all
    copies: int = 1  # how often each row has what is one in a one-row run


OUTERMOST = Joint(0)


def join_calls(calls: Sequence[Call], axes: Axes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of one forward for all calls, in order."""
    batch = calls[0].batch
    columns = zip(*(call.leaves for call in calls), strict=True)
    leaves = [_join_leaf(column, axis, batch) for column, axis in zip(columns, axes, strict=True)]
    args, kwargs = unflatten(calls[0].structure, leaves)
    return args, kwargs


def _join_leaf(column: tuple[Any, ...], axis: int | None, batch: int) -> Any:
    first = column[0]
    if axis is None:
        return first
    if axis == LIST:
        return type(first)([element for own in column for element in own])
    if axis == OWN:  # copies, so that rows draw on where they were: a call that draws is seen to differ
        return [own.clone_state() for own in column for _ in range(batch)]
    if axis == EACH:
        return torch.cat([value.expand(batch, *value.shape[1:]) for value in column])
    return torch.cat(column, dim=axis)


def with_holders(output: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Return a forward's output, and copies of the objects among its arguments, which it may have changed."""
    holders: list[Any] = []
    flatten((args, kwargs), holders=holders)
    contents = tuple(unflatten(*reversed(flatten(holder, holders=[]))) for holder in holders)
    return output, contents


def hand_back(call: Call, held: tuple[Any, ...]) -> None:
    """Let the objects of a row hold what a fused forward left in them."""
    for own, left in zip(call.holders, held, strict=True):
        vars(own).clear()
        vars(own).update(vars(left))


def layouts(value: Any) -> Any:
    """Return the value with the layout of each tensor in its place: how `part` knows what a row gets."""
    leaves, structure = flatten(value, holders=[])
    return unflatten(structure, [Layout.of(leaf) for leaf in leaves])


def part(output: Any, *, rows: int, like: Any) -> list[Any]:
    """Return each row's own output, in memory of its own, as a forward of that row alone would lay it out.

    like: `layouts` of what such a forward returns. What does not carry the rows is given to all.
    """
    if isinstance(output, Tensor):
        layout = like if isinstance(like, Layout) else None
        joint = joint_of(output, rows, layout)
        if joint is None:
            return [output] * rows
        return [row_slice(output, row, rows, layout, joint) for row in range(rows)]
    node = children_of(output)
    if node is None:
        return [output] * rows
    kind, children = node
    if isinstance(like, dict):
        own: list[Any] = list(like.values())
    else:
        own = list(like if isinstance(like, list | tuple) else getattr(like, "__dict__", {}).values())
    if isinstance(output, list | tuple) and len(children) == rows * len(own) != len(own):
        leaves, structure = flatten(children)
        copies = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        children = unflatten(structure, copies)
        return [rebuilt(kind, children[row * len(own) :][: len(own)]) for row in range(rows)]
    own = own if len(own) == len(children) else [None] * len(children)
    parted = [part(child, rows=rows, like=how) for child, how in zip(children, own, strict=True)]
    return [rebuilt(kind, [column[row] for column in parted]) for row in range(rows)]


def joint_of(leaf: Any, rows: int, layout: Layout | None) -> Joint | None:
    """Return where `leaf` is `rows` tensors of that layout; None where it is not."""
    if layout is None or not layout.shape or not isinstance(leaf, Tensor):
        return None
    own = layout.shape
    if len(leaf.shape) != len(own):
        return None
    if leaf.shape[0] == rows * own[0] and leaf.shape[1:] == own[1:]:
        return Joint(0)
    wider = [axis for axis, size in enumerate(leaf.shape) if size != own[axis]]
    if wider == [0] and own[0] > 1 and leaf.shape[0] == rows * (own[0] - 1) + 1:
        return Joint(0, shared=1)
    if wider == [0] and own[0] == 1 and leaf.shape[0] % rows == 0:
        return Joint(0, copies=leaf.shape[0] // rows)
    is_joined = len(wider) == 1 and leaf.shape[wider[0]] == rows * own[wider[0]]
    return Joint(wider[0]) if is_joined else None


def row_slice(tensor: Tensor, row: int, rows: int, layout: Layout | None, joint: Joint = OUTERMOST) -> Tensor:
    """Return a copy of one row's slice and of what all share, laid out as in a one-row run.

    A copy even where a view would do: memory that starts off a cache line may make MKL round differently.
    """
    axis, shared, copies = joint
    size = (tensor.shape[axis] - shared) // rows
    view = tensor.narrow(axis, row * size, size // copies)
    if shared:
        view = torch.cat([view, tensor.narrow(axis, rows * size, shared)], dim=axis)
    if layout is None or 0 in layout.strides:  # an expanded tensor cannot be written to
        return view.clone()
    return layout.copy_of(view)


def stack(column: Sequence[Any], joint: Joint | None) -> Any:
    """Join the rows' outputs so that each row's slice keeps its strides; without a joint, one is for all."""
    first = column[0]
    if joint is None:
        return first
    axis, shared, copies = joint
    pieces = [own for own in column for _ in range(copies)]
    if shared:
        size = first.shape[axis] - shared
        pieces = [*(own.narrow(axis, 0, size) for own in column), first.narrow(axis, size, shared)]
    if axis:
        return torch.cat(pieces, dim=axis)
    inner = first.stride()[1:]
    extent = 1 + sum((size - 1) * stride for size, stride in zip(first.shape[1:], inner, strict=True))
    outer = first.stride(0) if first.shape[0] > 1 else extent
    if outer < extent or 0 in inner:  # expanded, or the batch is not outermost: rows would overlap
        return torch.cat(pieces)
    shape = (sum(len(piece) for piece in pieces), *first.shape[1:])
    joined = torch.empty_strided(shape, (outer, *inner), dtype=first.dtype, device=first.device)
    return torch.cat(pieces, out=joined)
