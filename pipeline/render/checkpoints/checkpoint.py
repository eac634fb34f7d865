"""A half-done row, as the bytes of a file, and back; see `tensor_file.py`.

It holds what the row's denoisers have returned: with that, another process continues where this one stopped.
All else that a row computes follows from its request and these tensors, so it is computed again. The first
call of each shape is made again too, and compared: it shows the structure and memory layout of the outputs,
and that this machine computes the other's bits. So is each call that changed an object among its arguments,
e.g. a cache of keys and values, which then holds what it held.

Not covered: what networks keep in themselves, which `fused/forwards.py` finds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from framefleet.pipeline.errors import message_of
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.model.sources.headers import MAX_HEADER_BYTES
from framefleet.pipeline.render.fused.calls import Call, Result, bits, digest_of
from framefleet.pipeline.render.fused.concatenation import Layout
from framefleet.pipeline.render.fused.exact import are_equal
from framefleet.pipeline.render.tensor_file import add_tensor, read_tensor_file, tensor_file
from framefleet.pipeline.request import Request

# Of one row, in host memory. Wan 14B at 720p, 81 frames, in 50 steps with guidance: 1 GB.
MAX_KEPT_BYTES = 4 << 30
_MOST_ROWS = 1 << 16  # of a forward


class Made(NamedTuple):
    """One call of a denoiser."""

    module: str
    tensors: tuple[Tensor, ...]  # that it returned, on the CPU
    rows: int = 1  # of its forward
    is_again: bool = False  # it changed its arguments, so whoever continues the row makes the call again


_Held = tuple[Any, int | None]  # a leaf, and how often it was written to


class Differs(Exception):
    """A row that continues does not do what it did before."""


class Journal:
    """The calls of one row. obstacle: why they are not all that another process would need."""

    def __init__(self, made: Sequence[Made] = (), then: str | None = None, *, are_bits: bool = True) -> None:
        """made: by another process, in order; then: `mark_of` the call that it came to after them.

        are_bits: rows have the same bits in any company, so that all has to be equal.
        """
        self.made = list(made)
        self.obstacle: str | None = None
        self._then, self._are_bits = then, are_bits
        self._num_given, self._place = len(made), 0  # and how many of them this process has come to
        self._outputs: dict[Hashable, _Output] = {}  # of calls that look alike
        self._size = sum(tensor.nbytes for one in made for tensor in one.tensors)
        self._difference: str | None = None
        self._held: list[_Held] = []  # in objects among the arguments of the call that is made

    @property
    def is_behind(self) -> bool:
        """Whether the row has not yet reached the point where another process stopped."""
        return self._place < self._num_given

    def answer(self, call: Call) -> tuple[Any] | None:
        """Return what a call returned, in a tuple of one, if that is known; else the call must be made.

        From the row's own code. Raises Differs for another call than that which was made.
        """
        if self._difference:
            raise Differs(self._difference)
        self._held = _held_in(call)
        if self.is_behind:
            made, output = self.made[self._place], self._outputs.get(_look(call))
            if made.module != call.module:
                raise self._differs(f"it calls {call.module}, and not {made.module}")
            if made.is_again or output is None or not output.fits(made.tensors):
                return None
            self._place += 1
            return (output.holding(made.tensors),)
        then, self._then = self._then, None
        if then and self._are_bits and then != mark_of(call, GlobalDraws.now()):
            raise self._differs("replaying it gave a different state")
        return None

    def note(self, call: Call, result: Result) -> None:
        """A call was made, as `answer` asked for."""
        if self.is_behind:
            leaves, structure = flatten(result.value)
            output = self._outputs[_look(call)] = _Output.of(structure, leaves)
            made, own = self.made[self._place].tensors, (leaf for leaf in leaves if isinstance(leaf, Tensor))
            is_right = not result.error and output.fits(made)
            if is_right and self._are_bits:
                is_right = all(torch.equal(bits(a), bits(b).cpu()) for a, b in zip(made, own, strict=True))
            if not is_right:
                self._difference = f"{call.module} does not return what it returned"
            self._place += 1
        elif not self.obstacle:
            self._keep(call, result)

    def until(self, call: Call | None, draws: GlobalDraws) -> tuple[tuple[Made, ...], str | None]:
        """Return what another process needs. call: that the row has reached, if it is a denoiser's."""
        if self.is_behind or self._then or call is None:
            return tuple(self.made), self._then
        return tuple(self.made), mark_of(call, draws)

    def doubt(self, error: Exception | None) -> str | None:
        """Return why a row's result cannot be used; None if it can. error: how the row ended."""
        if self._difference:
            return self._difference
        if self.is_behind or self._then:
            failed = error and public_text(f"it fails on the way: {message_of(error)}")
            return failed or "it ends before where it was"
        return None

    def _keep(self, call: Call, result: Result) -> None:
        leaves, _ = flatten(result.value)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self._size += sum(tensor.nbytes for tensor in tensors)
        self.obstacle = _obstacle(call, result, leaves, self._size)
        try:
            copies = () if self.obstacle else tuple(map(_copied, tensors))
        except RuntimeError as error:  # no memory for it, or a broken GPU, which the row's next call meets
            self.obstacle = f"what {call.module} returned could not be copied: {error}"
        if self.obstacle:
            self.made.clear()
        else:
            # Shared forwards may give back equal copies of objects among the arguments.
            objects, before = _held_in(call), self._held
            is_same = len(before) == len(objects) and all(map(_is_same, before, objects))
            self.made.append(Made(call.module, copies, result.rows, not is_same))

    def _differs(self, how: str) -> Differs:
        self._difference = how
        return Differs(how)


def mark_of(call: Call, draws: GlobalDraws) -> str:
    """Return a digest of a call's values, and of what the row's code draws next from global generators."""
    text = repr((call.module, call.structure, [_value(leaf) for leaf in call.leaves]))
    return hashlib.sha256(draws.mark() + text.encode()).hexdigest()


class _Output(NamedTuple):
    """How calls of one look nest what they return. places: where each leaf goes; None: it is None."""

    structure: Hashable
    places: tuple[tuple[Layout, torch.dtype, torch.device] | None, ...]

    @classmethod
    def of(cls, structure: Hashable, leaves: Sequence[Any]) -> _Output:
        places = []
        for leaf in leaves:
            is_expanded = isinstance(leaf, Tensor) and 0 in leaf.stride()  # it cannot be written to
            layout = Layout.of(leaf.contiguous() if is_expanded else leaf)
            places.append((layout, leaf.dtype, leaf.device) if layout else None)
        return cls(structure, tuple(places))

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        own = [(layout.shape, dtype) for layout, dtype, _ in filter(None, self.places)]
        return own == [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]

    def holding(self, tensors: Sequence[Tensor]) -> Any:
        """Return such an output with these values, in memory of its own: pipelines write to it."""
        left = iter(tensors)
        leaves = [place[0].copy_of(next(left), place[2]) if place else None for place in self.places]
        return unflatten(self.structure, leaves)


def _copied(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU. A GPU is not waited for: it copies after what was launched before."""
    return tensor.detach().contiguous().to("cpu", copy=True, non_blocking=True)


def _obstacle(call: Call, result: Result, leaves: Sequence[Any], size: int) -> str | None:
    if result.error:  # the recipe may go on all the same
        return f"a forward of {call.module} failed"
    if any(isinstance(leaf, torch.Generator) for leaf in call.leaves):
        return f"{call.module} is given random generators, which it changes"
    if not all(leaf is None or (isinstance(leaf, Tensor) and not leaf.is_complex()) for leaf in leaves):
        return f"{call.module} returns more than tensors"
    if size > MAX_KEPT_BYTES:
        return f"what {call.module} returns takes more than {MAX_KEPT_BYTES >> 30} GiB"
    return None


def _held_in(call: Call) -> list[_Held]:
    """Return the leaves of objects among a call's arguments."""
    leaves, _ = flatten(call.holders, holders=[])
    # torch counts how often a tensor was written to, of all but those of inference mode
    return [
        (one, one._version if isinstance(one, Tensor) and not one.is_inference() else None) for one in leaves
    ]


def _is_same(before: _Held, after: _Held) -> bool:
    """Whether an object still holds what it held."""
    (one, version), (other, _) = before, after
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return one is other or (type(one) is type(other) and bool(one == other))
    if version is None or version != one._version:
        return False
    return one is other or are_equal(one, other)


def _look(call: Call) -> Hashable:
    """Return what calls that return tensors of equal shapes have in common."""
    return (call.module, call.structure, tuple(map(_size, call.leaves)))


def _size(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.dtype
    if isinstance(leaf, list | tuple):
        return tuple(map(_size, leaf))
    return leaf if isinstance(leaf, bool | str) else (type(leaf),)


def _value(leaf: Any) -> Any:
    """Return what is equal for equal values, also in another process."""
    if isinstance(leaf, Tensor):
        return digest_of(leaf)
    if isinstance(leaf, list | tuple):
        return [_value(child) for child in leaf]
    return leaf if isinstance(leaf, bool | int | float | str | None) else type(leaf)


_SECONDS = ("encode_s", "denoise_s", "decode_s", "compute_s")
_IDENTITY = ("row_id", "model", "build", "surroundings")
_KEYS = {"calls", "then", "seconds", "started_at", "was_batched", *_IDENTITY}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCheckpoint:
    """How far a row has come. Where it continues, the three digests must be the same."""

    row_id: str
    model: str  # digest of the model's files
    build: str  # digest of framefleet's source
    surroundings: str  # digest of all else that decides bits
    made: Sequence[Made]  # see `Journal`
    then: str | None  # see `Journal`
    seconds: Mapping[str, float]  # spent so far
    started_at: datetime
    was_batched: bool


def checkpoint_bytes(checkpoint: RowCheckpoint) -> bytes:
    tensors: dict[str, Tensor] = {}
    calls = []
    for one in checkpoint.made:
        names = [add_tensor(tensors, tensor) for tensor in one.tensors]
        calls.append([one.module, names, one.rows, one.is_again])
    body = {
        **{name: getattr(checkpoint, name) for name in _IDENTITY},
        "then": checkpoint.then,
        "calls": calls,
        "seconds": {name: checkpoint.seconds.get(name, 0.0) for name in _SECONDS},
        "started_at": checkpoint.started_at.astimezone(UTC).isoformat(),
        "was_batched": checkpoint.was_batched,
    }
    return tensor_file(body, tensors)


def read_checkpoint(content: bytes) -> RowCheckpoint:
    """Return what `checkpoint_bytes` was given. Raises ValueError for anything else, and for a wrong bit."""
    if len(content) > MAX_KEPT_BYTES + MAX_HEADER_BYTES:
        raise ValueError("it is larger than any that framefleet writes")
    try:
        return _checkpoint(*read_tensor_file(content))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"it is not a checkpoint: {error}") from error


def _checkpoint(body: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> RowCheckpoint:
    if body.keys() != _KEYS or not isinstance(body["was_batched"], bool):
        raise ValueError("its metadata is invalid")
    made = []
    for module, names, rows, is_again in body["calls"]:
        outputs = tuple(tensors[name] for name in names)
        if not 1 <= int(rows) <= _MOST_ROWS:
            raise ValueError(f"not a number of rows: {rows}")
        made.append(Made(str(module), outputs, int(rows), bool(is_again)))
    seconds = {name: float(body["seconds"][name]) for name in _SECONDS}
    if not all(0 <= value < math.inf for value in seconds.values()):
        raise ValueError(f"invalid durations: {seconds}")
    return RowCheckpoint(
        **{name: str(body[name]) for name in _IDENTITY},
        made=made,
        then=None if body["then"] is None else str(body["then"]),
        seconds=seconds,
        started_at=min(datetime.fromisoformat(body["started_at"]).astimezone(UTC), datetime.now(UTC)),
        was_batched=body["was_batched"],
    )


@dataclass(eq=False, repr=False)
class HalfDone:
    """A row that is not a clip yet."""

    row_id: str
    request: Request
    _checkpoint: RowCheckpoint | bytes | None = None

    @property
    def can_go_on(self) -> bool:
        """Whether there is a checkpoint; asking makes none."""
        return self._checkpoint is not None

    @cached_property
    def checkpoint(self) -> bytes | None:
        """The bytes for `Renderer.submit`, made when they are first read, from any thread; else None."""
        if isinstance(self._checkpoint, RowCheckpoint):
            return checkpoint_bytes(self._checkpoint)
        return self._checkpoint
