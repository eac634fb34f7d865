"""One call of a pipeline for several rows: its calls of networks are each row's own, and so are its outputs.

Rows lie innermost in the first dimension, as everywhere in diffusers: guidance puts all negative prompts
before all positive ones.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from greenlet import GreenletExit
from torch import Generator, Tensor

from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.model.lora import without_loras
from framefleet.pipeline.outputs.frames.frames import is_late
from framefleet.pipeline.render.fused.calls import Call
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.prompt_lengths import texts_of

if TYPE_CHECKING:
    from framefleet.pipeline.render.fused.batcher import RowTask

# The lengths of the first dimensions of leaves, or 0; by what `_key` returns of a call of one row.
Lengths = Mapping[Hashable, Sequence[int]]


class JointError(Exception):
    """Several rows were not rendered by one call of their pipeline."""


@dataclass(slots=True, eq=False)
class JointCall:
    """Made by the first of its rows; the others begin once it was made."""

    requests: Sequence[Request]  # alike in all but texts and seed
    lengths: Callable[[], Lengths]  # of calls of such rows alone
    are_unlike: bool = False  # whether prompts differ in length
    tasks: list[RowTask] = field(default_factory=list)  # of its rows, in their order
    place: int = 0  # of the row whose text is encoded
    _outputs: list[Any] | None = None
    _error: BaseException | None = None

    def add(self, task: RowTask) -> None:
        task.is_held = self._is_making if self.tasks else self._is_waiting
        self.tasks.append(task)

    def output(self, pipe: Any, request: Request) -> Any:
        """Return what the pipeline returns for one of the rows. Raises JointError."""
        if request is self.requests[0] and self._is_making():
            token = _at_work.set(self)
            try:
                self._outputs = self._called(pipe)
            except (Exception, GreenletExit) as error:  # whatever a pipeline raises that is given lists
                self._error = error
            finally:
                _at_work.reset(token)
        if self._outputs is None:
            raise JointError from self._error
        place = next(at for at, one in enumerate(self.requests) if one is request)  # there may be equal ones
        output, self._outputs[place] = self._outputs[place], None  # which may be on the GPU
        return output

    def end(self) -> None:
        """Hold nothing of its rows any more, once all have ended: they hold this call, too."""
        if all(task.is_finished for task in self.tasks):
            self.tasks, self._error = [], None

    def calls(self, name: str, args: Any, kwargs: Any, *, is_text: bool = False) -> list[Any]:
        """Return the (args, kwargs) of each row's own call. Raises JointError if a row alone has none such.

        is_text: of a text encoder. Then what is as long as the first tensor is the rows'; [] if that is not.
        """
        num_rows, holders = len(self.requests), list[Any]()
        leaves, structure = flatten((args, kwargs), is_leaf=self._are_generators, holders=holders)
        sizes = _lengths_of(leaves)
        size, rest = divmod(_first(sizes), num_rows)
        lengths = self.lengths().get(_key(name, structure, size, leaves, by_shape=self.are_unlike))
        if is_text:
            if rest or not size:
                return []
            lengths = [size if own == size * num_rows else own for own in sizes]
        if lengths is None or holders:
            raise JointError(f"{name} is not called as for one row")

        def part(leaf: Any, length: int, row: int) -> Any:
            if isinstance(leaf, list):
                return leaf[row]
            if not length or len(leaf) != length * num_rows:
                return leaf
            own = leaf[row::num_rows]
            return own if 0 in own.stride() else own.contiguous()  # as it lies in a call of one row

        pairs = [*zip(leaves, lengths, strict=True)]
        return [unflatten(structure, [part(*pair, row) for pair in pairs]) for row in range(num_rows)]

    def _called(self, pipe: Any) -> list[Any]:
        arguments = without_loras(self.requests[0].arguments)
        for name, _ in texts_of(arguments):
            arguments[name] = [request.arguments[name] for request in self.requests]
        generators = [request.generator() for request in self.requests]
        output = pipe(**arguments, generator=generators, output_type="np")
        values = [getattr(output, one.name) for one in fields(output)]
        if any(value is not None and len(value) != len(generators) for value in values):
            raise JointError("it does not return something for each row")

        def part(value: Any, row: int) -> Any:
            if value is None:
                return None
            return value[row] if is_late(value[row]) else value[row : row + 1]

        return [type(output)(*(part(value, row) for value in values)) for row in range(len(generators))]

    def _is_waiting(self) -> bool:
        """Whether a row's call is to be made first."""
        return any(task.call and not task.is_finished for task in self.tasks)

    def _is_making(self) -> bool:
        return self._outputs is None and not self.tasks[0].is_finished

    def _are_generators(self, value: Any) -> bool:
        return len(value) == len(self.requests) and all(isinstance(one, Generator) for one in value)


_at_work: ContextVar[JointCall | None] = ContextVar("joint", default=None)


def joint_at_work() -> JointCall | None:
    """Return the call for several rows that the running code makes."""
    return _at_work.get()


def lengths_in(calls: Iterable[Call], *, by_shape: bool) -> Lengths:
    found: dict[Hashable, Sequence[int]] = {}
    for call in calls:
        lengths = _lengths_of(call.leaves)
        found[_key(call.module, call.structure, _first(lengths), call.leaves, by_shape=by_shape)] = lengths
    return found


def _key(name: str, structure: Hashable, size: int, leaves: Sequence[Any], *, by_shape: bool) -> Hashable:
    """Return what is equal for calls that are alike. size: their first length, for one row.

    by_shape: some pipelines pad prompts in steps: two that are alike within one step are not in another.
    """
    shapes = (leaf.shape[1:] if isinstance(leaf, Tensor) else None for leaf in leaves)
    return name, structure, size, tuple(shapes) if by_shape else None


def _lengths_of(leaves: Sequence[Any]) -> list[int]:
    return [len(leaf) if isinstance(leaf, Tensor) and leaf.dim() else 0 for leaf in leaves]


def _first(lengths: Iterable[int]) -> int:
    return next(filter(None, lengths), 0)


def joined_rows(outputs: Sequence[Any]) -> Any:
    """Return what a network's call for all rows returns, by what each row's own returned."""
    columns = zip(*(flatten(output)[0] for output in outputs), strict=True)
    leaves = [torch.stack(own, 1).flatten(0, 1) if _first(_lengths_of(own)) else own[0] for own in columns]
    return unflatten(flatten(outputs[0])[1], leaves)


def row_by_row(name: str, encode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Put around text encoders: encode each row's text by itself, as it is remembered by that."""
    joint = joint_at_work()
    if joint is None or not (calls := joint.calls(name, args, kwargs, is_text=True)):
        return encode(*args, **kwargs)
    outputs = []
    for joint.place, (own_args, own_kwargs) in enumerate(calls):
        outputs.append(encode(*own_args, **own_kwargs))
    return joined_rows(outputs)
