"""Run a fused forward in which chosen calls of inner modules, the pins, go row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.pipeline.hooks.adapters import working_on, working_rows
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.render.fused.calls import Call, Layout, adapters_of, join_calls, part, row_slice

Forward = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """How one call of a module looks in a one-row run: the layouts of its arguments' and output's leaves."""

    arguments: tuple[Layout | None, ...]
    outputs: tuple[Layout | None, ...]

    def is_partable(self, arguments: Any, rows: int) -> bool:
        """Whether every tensor of a fused call is the rows joined, or the same as in the one-row run."""
        leaves, _ = flatten(arguments)
        if len(leaves) != len(self.arguments):
            return False
        pairs = list(zip(leaves, self.arguments, strict=True))
        return any(is_joined(leaf, rows, layout) for leaf, layout in pairs) and all(
            layout is None or is_joined(leaf, rows, layout) or _is_same(leaf, layout)
            for leaf, layout in pairs
        )

    def carries_rows(self, output: Any, rows: int) -> bool:
        """Whether a fused call's output is the rows joined, not one for all, as rotary tables are."""
        leaves, _ = flatten(output)
        return any(is_joined(leaf, rows, layout) for leaf, layout in zip(leaves, self.outputs, strict=True))


Traces = Mapping[str, Sequence[Trace]]  # by a module's name: how its calls in one forward look, if not alike


def matching_trace(traces: Traces, name: str, arguments: Any, rows: int) -> Trace | None:
    """Return how this fused call looks in a one-row run; None when it is not one that can be parted."""
    return next((trace for trace in traces.get(name, ()) if trace.is_partable(arguments, rows)), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run a forward of some size: the pinned calls, and the layout of one row's output."""

    pins: Traces
    output: tuple[Layout | None, ...]


class Rows:
    """Runs pinned calls row by row within one fused forward. Put around modules by `intercept`."""

    def __init__(self, rows: int, pins: Traces) -> None:
        self.rows = rows
        self._pins = pins
        self.is_nested = False  # inside a call that goes row by row already

    def __call__(self, name: str, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        trace = None if self.is_nested else matching_trace(self._pins, name, (args, kwargs), self.rows)
        return forward(*args, **kwargs) if trace is None else self.by_row(forward, args, kwargs, trace)

    def by_row(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> Any:
        """Call `forward` once for each row; join the outputs in the layout of a one-row run."""
        leaves, structure = flatten((args, kwargs))
        outputs = []
        self.is_nested = True
        try:
            for row in range(self.rows):
                own_args, own_kwargs = unflatten(structure, self._own(leaves, row, trace))
                with working_on(working_rows()[row : row + 1]):
                    outputs.append(flatten(forward(*own_args, **own_kwargs)))
        finally:
            self.is_nested = False
        columns = zip(*(leaves for leaves, _ in outputs), strict=True)
        return unflatten(outputs[0][1], [stack(column) for column in columns])

    def _own(self, leaves: list[Any], row: int, trace: Trace) -> list[Any]:
        return [
            row_slice(leaf, row, self.rows, layout) if is_joined(leaf, self.rows, layout) else leaf
            for leaf, layout in zip(leaves, trace.arguments, strict=True)
        ]


def run_fused(module: nn.Module, forward: Forward, calls: Sequence[Call], plan: Plan | None) -> list[Any]:
    """Run one forward for all calls; return each row's output. Without a plan nothing is pinned."""
    args, kwargs = join_calls(calls)
    pins = plan.pins if plan else {}
    with working_on(adapters_of(calls)), intercept(pinned_modules(module, pins), Rows(len(calls), pins)):
        output = forward(*args, **kwargs)
    return part(output, rows=len(calls), batch=calls[0].batch, layout=plan.output if plan else None)


def pinned_modules(module: nn.Module, pins: Traces) -> dict[str, nn.Module]:
    return {name: module.get_submodule(name) for name in pins}


def is_joined(leaf: Any, rows: int, layout: Layout | None) -> bool:
    """Whether `leaf` is `rows` tensors of that layout, joined along the first dimension."""
    if layout is None or not layout.shape or not isinstance(leaf, Tensor):
        return False
    return tuple(leaf.shape) == layout.times(rows)


def _is_same(leaf: Any, layout: Layout) -> bool:
    return isinstance(leaf, Tensor) and tuple(leaf.shape) == layout.shape


def stack(column: Sequence[Any]) -> Any:
    """Join the rows' outputs so that each row's slice keeps its strides."""
    first = column[0]
    if not isinstance(first, Tensor) or first.dim() == 0:
        return first
    inner = first.stride()[1:]
    extent = 1 + sum((size - 1) * stride for size, stride in zip(first.shape[1:], inner, strict=True))
    outer = first.stride(0) if first.shape[0] > 1 else extent
    if outer < extent or 0 in inner:  # expanded, or the batch is not outermost: rows would overlap
        return torch.cat(list(column))
    shape = (len(column) * first.shape[0], *first.shape[1:])
    joined = torch.empty_strided(shape, (outer, *inner), dtype=first.dtype, device=first.device)
    return torch.cat(list(column), out=joined)
