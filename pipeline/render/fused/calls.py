"""Calls of one module by several rows: which can share a forward, how they are joined and parted.

A row brings its own batch: one for most pipelines, two where guidance joins both prompts in one call. The
tensors that carry it are those whose first dimension is that of the first argument; a 0-d tensor is a
timestep and is expanded; any other tensor is shared, and only rows with an equal one can share the forward.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from framefleet.pipeline.hooks.adapters import Adapters, of_one_row
from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.hooks.tree import flatten, unflatten


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One row's call of a module.

    leaves: the arguments' leaves in order. batch: the row's own batch size.
    shape: equal for calls that look alike; signature: equal for calls that may share a forward. adapters: the
    LoRAs of the row, which keep no calls apart. draws: what a forward of this row alone draws from global
    generators; what a shared one draws is nobody's, and so not exact.
    """

    module: str
    leaves: list[Any]
    structure: Hashable
    batch: int
    shape: Hashable
    signature: Hashable
    adapters: Adapters = ()
    draws: GlobalDraws = field(default_factory=GlobalDraws)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = unflatten(self.structure, self.leaves)
        return args, kwargs


def parse_call(module: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Describe a call. A batch of 0 says that it is not shared: its first argument is no batched tensor."""
    leaves, structure = flatten((args, kwargs))
    first = next(iter(args), None) if args else next(iter(kwargs.values()), None)
    batch = first.shape[0] if isinstance(first, Tensor) and first.dim() > 0 else 0
    shape = (module, batch, structure, tuple(_shape(leaf, batch) for leaf in leaves))
    shared = tuple(_fingerprint(leaf) for leaf in leaves if batch and _is_shared(leaf, batch))
    return Call(
        module=module,
        leaves=leaves,
        structure=structure,
        batch=batch,
        shape=shape,
        signature=(shape, shared),
        adapters=of_one_row(),
    )


def with_shorter_masks(call: Call, *, keep: float) -> Call:
    """Return the call with that part of each mask of tokens kept, or the call itself, which has none."""
    leaves = [_shortened(leaf, keep) if _is_mask(leaf, call.batch) else leaf for leaf in call.leaves]
    is_other = any(leaf is not own for leaf, own in zip(leaves, call.leaves, strict=True))
    return replace(call, leaves=leaves) if is_other else call


def _is_mask(leaf: Any, batch: int) -> bool:
    """Whether it says for each token of each row that it counts (1) or not (0)."""
    is_flat = isinstance(leaf, Tensor) and leaf.dim() == 2 and leaf.shape[0] == batch and leaf.shape[1] > 1
    return is_flat and bool(((leaf == 0) | (leaf == 1)).all())


def _shortened(mask: Tensor, keep: float) -> Tensor:
    shorter = mask.clone()
    shorter[:, max(1, int(mask.shape[1] * keep)) :] = 0
    return shorter


def adapters_of(calls: Sequence[Call]) -> tuple[Adapters, ...]:
    return tuple(call.adapters for call in calls)


def is_private() -> bool:
    """Whether the running code switched on what torch keeps per thread, so that its calls are its own.

    Another row that ran meanwhile would get gradients, inference mode or another precision with it.
    """
    autocast = any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))
    return autocast or torch.is_grad_enabled() or torch.is_inference_mode_enabled()


def join_calls(calls: Sequence[Call]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of one forward for all calls, in order."""
    batch = calls[0].batch
    columns = zip(*(call.leaves for call in calls), strict=True)
    leaves = [_join_leaf(column, batch) for column in columns]
    args, kwargs = unflatten(calls[0].structure, leaves)
    return args, kwargs


def part(output: Any, *, rows: int, batch: int, layout: Sequence[Layout | None] | None = None) -> list[Any]:
    """Return each row's own output, in memory of its own, as a forward of that row alone would lay it out."""
    leaves, structure = flatten(output)
    parted = []
    for row in range(rows):
        own = [
            row_slice(leaf, row, rows, layout[i] if layout else None)
            if isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == rows * batch
            else leaf
            for i, leaf in enumerate(leaves)
        ]
        parted.append(unflatten(structure, own))
    return parted


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape and strides of a tensor in a one-row run."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, leaf: Any) -> Layout | None:
        return cls(tuple(leaf.shape), leaf.stride()) if isinstance(leaf, Tensor) else None

    def times(self, rows: int) -> tuple[int, ...]:
        """The shape of `rows` such tensors joined."""
        return (rows * self.shape[0], *self.shape[1:])

    def fits(self, tensor: Tensor) -> bool:
        """Whether the strides agree wherever they matter: not where a dimension of one row is 1."""
        return all(
            size == 1 or mine == theirs
            for size, mine, theirs in zip(self.shape, self.strides, tensor.stride(), strict=True)
        )


def row_slice(tensor: Tensor, row: int, rows: int, layout: Layout | None) -> Tensor:
    """Return a copy of one row's slice, laid out as in a one-row run.

    A copy even where a view would do: memory that starts off a cache line may make MKL round differently.
    """
    size = tensor.shape[0] // rows
    view = tensor.narrow(0, row * size, size)
    if layout is None or 0 in layout.strides:  # an expanded tensor cannot be written to
        return view.clone()
    own = torch.empty_strided(layout.shape, layout.strides, dtype=tensor.dtype, device=tensor.device)
    return own.copy_(view)


def _join_leaf(column: tuple[Any, ...], batch: int) -> Any:
    first = column[0]
    if not isinstance(first, Tensor):
        return first
    if first.dim() == 0:
        return torch.cat([value.expand(batch) for value in column])
    return first if _is_shared(first, batch) else torch.cat(column)


def _is_shared(leaf: Any, batch: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] != batch


def _shape(leaf: Any, batch: int) -> Hashable:
    if isinstance(leaf, Tensor):
        strides = tuple(stride for size, stride in zip(leaf.shape, leaf.stride(), strict=True) if size > 1)
        return (_is_shared(leaf, batch), tuple(leaf.shape), strides, leaf.dtype, leaf.device)
    try:
        hash(leaf)
    except TypeError:
        return object()  # equal to nothing: what cannot be compared is not shared
    return (type(leaf), leaf)


_fingerprints: MutableMapping[Tensor, tuple[int, bytes]] = WeakTensorKeyDictionary()


def _fingerprint(tensor: Tensor) -> bytes:
    """A digest of the values, remembered as long as the tensor lives unchanged."""
    known = _fingerprints.get(tensor)
    if known is not None and known[0] == tensor._version:
        return known[1]
    digest = digest_of(tensor)
    _fingerprints[tensor] = (tensor._version, digest)
    return digest


def digest_of(tensor: Tensor) -> bytes:
    """SHA-256 of a tensor's dtype, shape and values."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(bits(tensor).cpu().numpy().data)
    return digest.digest()


def bits(tensor: Tensor) -> Tensor:
    """Return the values as a line of bytes."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
