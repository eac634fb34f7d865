"""Calls of one module by several rows, as values: what a row brings, and how many of it.

A row brings its own batch: one for most pipelines, two where guidance joins both prompts in one call. It is
the first dimension of the first argument. Or that is a list of tensors as long as the batch: then every list
of that length holds what the row brings, one element for each of its batch, each of a shape of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from framefleet.pipeline.hooks.adapters import RowAdapters, of_one_row
from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.hooks.tree import flatten, unflatten

# For each leaf of a call: the dimension along which rows are joined, LIST for lists of rows, EACH for what is
# one for a row's batch and copied for each of it, OWN for a row's generator of random numbers, or None for
# what is shared by rows that have it equal.
Axes = tuple[int | None, ...]
LIST = -1
EACH = -2
OWN = -3


class CallKey:
    """A key that is looked up many times: its hash is computed once."""

    __slots__ = ("_hash", "value")

    def __init__(self, value: Hashable) -> None:
        self.value = value
        self._hash = hash(value)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return repr(self.value)

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, CallKey) and self._hash == other._hash and self.value == other.value
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    module: str
    leaves: list[Any]  # of the arguments, in order; a list of the row's batch is one leaf
    structure: Hashable
    batch: int  # the row's own batch size; 0 for a call that is not shared
    shape: Hashable  # equal for calls that look alike
    axes: Axes  # along which it would be joined with others, as far as the call itself shows
    has_lists: bool = False  # some leaves are lists of the row's batch
    holders: tuple[Any, ...] = ()  # objects among the arguments that a forward may change
    # The arguments themselves, if there are holders.
    given: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    adapters: RowAdapters = field(default_factory=RowAdapters)  # the row's LoRAs, which do not separate calls
    # What a forward of this row alone draws from global generators; what a shared one draws is no row's, and
    # so not exact.
    draws: GlobalDraws = field(default_factory=GlobalDraws)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = self.given or unflatten(self.structure, self.leaves)
        return args, kwargs


@dataclass(frozen=True, slots=True)
class Result:
    """What one call returned or raised, and how many rows its forward took."""

    value: Any
    error: Exception | None
    rows: int


def parse_call(
    module: str, args: tuple[Any, ...], kwargs: dict[str, Any], draws: GlobalDraws | None = None
) -> Call:
    """Describe a call. A batch of 0 says that it is not shared: its first argument brings no batch."""
    first = next(iter(args), None) if args else next(iter(kwargs.values()), None)
    batch, has_lists = _batch_of(first, (*args, *kwargs.values()))

    arguments = (args, kwargs)

    def is_row_list(value: Any) -> bool:
        return has_lists and len(value) == batch and value is not args and value is not arguments

    holders: list[Any] = []
    leaves, structure = flatten(arguments, is_leaf=is_row_list, holders=holders)
    if has_lists:  # copies: a network may change the lists that it is given
        leaves = [type(leaf)(leaf) if isinstance(leaf, list | tuple) else leaf for leaf in leaves]
    return Call(
        module=module,
        leaves=leaves,
        structure=structure,
        batch=batch,
        shape=CallKey((module, batch, structure, tuple([_shape(leaf) for leaf in leaves]))),
        axes=tuple([_axis(leaf, batch) for leaf in leaves]),
        has_lists=has_lists,
        holders=tuple(holders),
        given=arguments if holders else None,
        adapters=of_one_row(),
        draws=draws or GlobalDraws(),
    )


def masks_of(call: Call) -> tuple[int, ...]:
    def is_mask(leaf: Any) -> bool:
        """Whether it says for each token of each row that it counts (1) or not (0)."""
        is_flat = isinstance(leaf, Tensor) and leaf.dim() == 2 and leaf.shape[0] == call.batch
        return is_flat and leaf.shape[1] > 1 and bool(((leaf == 0) | (leaf == 1)).all())

    return tuple(place for place, leaf in enumerate(call.leaves) if is_mask(leaf))


def with_masks(call: Call, *, keep: float) -> Call:
    """Return the call with texts of other lengths: that part of each mask of tokens counts."""
    leaves = list(call.leaves)
    for place in masks_of(call):
        mask = leaves[place]
        other = torch.ones_like(mask)
        other[:, max(1, int(mask.shape[1] * keep)) :] = 0
        leaves[place] = other
    return replace(call, leaves=leaves, given=None)


def are_unlike(calls: Sequence[Call]) -> bool:
    """Whether they have lists of rows whose shapes differ from call to call."""
    return calls[0].has_lists and len({call.shape for call in calls}) > 1


def adapters_of(calls: Sequence[Call]) -> tuple[RowAdapters, ...]:
    return tuple(call.adapters for call in calls)


def is_private() -> bool:
    """Whether the running code switched on what torch keeps per thread, so that its calls are its own.

    Another row that ran meanwhile would get gradients, inference mode, another precision or a mode that sees
    each operation with it.
    """
    autocast = any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))
    modes = torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack()
    return bool(autocast or modes or torch.is_grad_enabled() or torch.is_inference_mode_enabled())


def _batch_of(first: Any, arguments: tuple[Any, ...]) -> tuple[int, bool]:
    """Return the row's batch size, and whether it comes as lists."""
    if isinstance(first, Tensor):
        return (first.shape[0] if first.dim() else 0), False
    if not isinstance(first, list | tuple) or not first or not _holds_tensors(first):
        return 0, False
    # A list of tensors holds rows, or the parts of one (a picture and a sound): other arguments show which.
    sizes = [leaf.shape[0] for leaf in arguments if isinstance(leaf, Tensor) and leaf.dim()]
    size = first[0].shape[0] if isinstance(first[0], Tensor) and first[0].dim() else 0
    return (size, False) if sizes.count(size) > sizes.count(len(first)) else (len(first), True)


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_tensors(child) for child in value)
    return isinstance(value, Tensor)


def _shape(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        strides = tuple(stride for size, stride in zip(leaf.shape, leaf.stride(), strict=True) if size > 1)
        return (tuple(leaf.shape), strides, leaf.dtype, leaf.device)
    if isinstance(leaf, list | tuple):
        return (type(leaf), tuple(_shape(child) for child in leaf))
    if isinstance(leaf, torch.Generator):
        return (torch.Generator, leaf.device)
    try:
        hash(leaf)
    except TypeError:
        return object()  # equal to nothing: what cannot be compared is not shared
    return (type(leaf), leaf)


def _axis(leaf: Any, batch: int) -> int | None:
    if isinstance(leaf, Tensor):
        return EACH if leaf.dim() == 0 else 0 if leaf.shape[0] == batch else None
    if isinstance(leaf, torch.Generator):
        return OWN
    return LIST if isinstance(leaf, list | tuple) else None


_fingerprints: MutableMapping[Tensor, tuple[int, bytes]] = WeakTensorKeyDictionary()


def fingerprint(leaf: Any) -> Hashable:
    """Return a digest of a tensor's values, remembered while it is unchanged; for a list, of each tensor."""
    if isinstance(leaf, list | tuple):
        return tuple(fingerprint(child) for child in leaf)
    if not isinstance(leaf, Tensor):
        return None  # its shape says it
    if leaf.is_inference():  # torch does not count its changes
        return digest_of(leaf)
    remembered = _fingerprints.get(leaf)
    if remembered is not None and remembered[0] == leaf._version:
        return remembered[1]
    _fingerprints[leaf] = (leaf._version, digest := digest_of(leaf))
    return digest


def digest_of(tensor: Tensor) -> bytes:
    """Return the SHA-256 of a tensor's dtype, shape and values."""
    return digests_of([tensor])[0]


def digests_of(tensors: Sequence[Tensor]) -> list[bytes]:
    """Return the SHA-256 of each one's dtype, shape and values; a GPU is waited for once."""
    lines = [bits(tensor) for tensor in tensors]
    if len(lines) > 1 and len({line.device for line in lines}) == 1 and not lines[0].is_cpu:
        joined, sizes = torch.cat(lines).cpu(), [len(line) for line in lines]
        lines = list(torch.split(joined, sizes))
    digests = []
    for tensor, line in zip(tensors, lines, strict=True):
        digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(line.cpu().numpy().data)
        digests.append(digest.digest())
    return digests


def bits(tensor: Tensor) -> Tensor:
    whole = tensor.detach().contiguous()
    # one value that was expanded has a stride of 0 all the same
    return whole.as_strided((whole.numel(),), (1,)).view(torch.uint8)


@dataclass(frozen=True, slots=True)
class Method:
    network: nn.Module
    name: str = "forward"
    seconds: str = "denoise_s"  # under which name a row's share of its time is counted
    # Of its weights, where rows may change it around a call, as pipelines do that decode in fp32.
    dtype: torch.dtype | None = None

    @property
    def is_as_it_was(self) -> bool:
        """Whether its weights have their dtype: a row that changed it needs the call made at once."""
        return self.dtype is None or dtype_of(self.network) == self.dtype

    @property
    def call(self) -> Callable[..., Any]:
        return getattr(self.network, self.name)


def dtype_of(network: nn.Module) -> torch.dtype | None:
    return next((weight.dtype for weight in network.parameters()), None)


Methods = Mapping[str, Method]  # by what logs call them
