"""Run a fused forward in which chosen calls of inner modules, the pins, go row by row."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from framefleet.pipeline.hooks.adapters import working_on, working_rows
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.render.fused.calls import Axes, Call, adapters_of
from framefleet.pipeline.render.fused.joining import (
    Joint,
    Layout,
    join_calls,
    joint_of,
    part,
    row_slice,
    stack,
    with_holders,
)

Forward = Callable[..., Any]
Outputs = list[tuple[list[Any], Hashable]]  # of one call of a module for each row, taken apart


@dataclass(frozen=True, slots=True)
class Trace:
    """How one call of a module looks in a one-row run: the layouts of its arguments' and output's leaves.

    joints: how rows' outputs are joined, by leaf; known of calls that are pinned.
    """

    arguments: tuple[Layout | None, ...]
    outputs: tuple[Layout | None, ...]
    joints: tuple[Joint | None, ...] = ()

    def is_alike(self, arguments: Any, rows: int) -> bool:
        """Whether every tensor of a fused call is the rows joined, or the same as in the one-row run."""
        return self._joints_of(arguments, rows) is not None

    def is_partable(self, arguments: Any, rows: int) -> bool:
        """Whether it is alike, and holds rows that can be parted."""
        joints = self._joints_of(arguments, rows)
        return joints is not None and any(joint is not None for joint in joints)

    def _joints_of(self, arguments: Any, rows: int) -> list[Joint | None] | None:
        """Return where each leaf carries the rows, if at all; None where one is something else than alone."""
        leaves, _ = flatten(arguments, holders=[])
        if len(leaves) != len(self.arguments):
            return None
        joints = []
        for leaf, layout in zip(leaves, self.arguments, strict=True):
            joint = joint_of(leaf, rows, layout)
            is_same = _is_same(leaf, layout) if layout else not isinstance(leaf, Tensor)
            if joint is None and not is_same:
                return None
            joints.append(joint)
        return joints

    def seen_in(self, output: Any, rows: int) -> Trace:
        """Return it with the joints of a fused call's output: None where that is one for all rows.

        Without any where it is not told.
        """
        leaves, _ = flatten(output, holders=[])
        if len(leaves) != len(self.outputs):  # lists of rows, which say nothing of where they come from
            return replace(self, joints=())
        pairs = zip(leaves, self.outputs, strict=True)
        return replace(self, joints=tuple(joint_of(leaf, rows, layout) for leaf, layout in pairs))


Traces = Mapping[str, Sequence[Trace]]  # by a module's name: how its calls in one forward look, if not alike


def look_inside(traces: Traces) -> Hashable:
    """The shapes of inner modules' calls. Strides may differ: every shape of call is proven for itself."""
    return tuple((name, tuple(map(_shapes, found))) for name, found in traces.items())


def _shapes(trace: Trace) -> tuple[tuple[int, ...] | None, ...]:
    layouts = (*trace.arguments, *trace.outputs)
    return tuple(layout.shape if layout else None for layout in layouts)


def matching_trace(traces: Traces, name: str, arguments: Any, rows: int) -> Trace | None:
    """Return how this fused call looks in a one-row run; None when it is not one that can be parted."""
    return next((trace for trace in traces.get(name, ()) if trace.is_partable(arguments, rows)), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run a forward of some size.

    axes: along which the calls are joined; pins: the calls of inner modules that go row by row; output: the
    `layouts` of what one row gets, see `with_holders`.
    """

    axes: Axes
    pins: Traces
    output: Any


class Rows:
    """Runs pinned calls row by row within one fused forward. Put around modules by `intercept`."""

    def __init__(self, rows: int, pins: Traces) -> None:
        self.rows = rows
        self._pins = pins
        self.is_nested = False  # inside a call that goes row by row already

    def __call__(self, name: str, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        trace = None if self.is_nested else matching_trace(self._pins, name, (args, kwargs), self.rows)
        if trace is None:
            return forward(*args, **kwargs)
        return joined(self.by_row(forward, args, kwargs, trace), trace)

    def by_row(
        self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace
    ) -> Outputs:
        """Call `forward` once for each row."""
        leaves, structure = flatten((args, kwargs), holders=[])
        outputs = []
        self.is_nested = True
        try:
            for row in range(self.rows):
                own_args, own_kwargs = unflatten(structure, self._own(leaves, row, trace))
                with working_on(working_rows()[row : row + 1]):
                    outputs.append(flatten(forward(*own_args, **own_kwargs), holders=[]))
        finally:
            self.is_nested = False
        return outputs

    def _own(self, leaves: list[Any], row: int, trace: Trace) -> list[Any]:
        return [
            leaf if joint is None else row_slice(leaf, row, self.rows, layout, joint)
            for leaf, layout in zip(leaves, trace.arguments, strict=True)
            for joint in [joint_of(leaf, self.rows, layout)]
        ]


def joined(outputs: Outputs, trace: Trace) -> Any:
    """Join the rows' outputs in the layout of a one-row run."""
    columns = zip(*(leaves for leaves, _ in outputs), strict=True)
    leaves = [stack(column, joint) for column, joint in zip(columns, trace.joints, strict=True)]
    return unflatten(outputs[0][1], leaves)


def run_fused(module: nn.Module, forward: Forward, calls: Sequence[Call], plan: Plan) -> list[Any]:
    """Run one forward for all calls; return each row's output and what its holders hold then."""
    args, kwargs = join_calls(calls, plan.axes)
    rows = Rows(len(calls), plan.pins)
    with working_on(adapters_of(calls)), intercept(pinned_modules(module, plan.pins), rows):
        output = forward(*args, **kwargs)
    whole = with_holders(output, args, kwargs) if calls[0].holders else (output, ())
    return part(whole, rows=len(calls), like=plan.output)


def pinned_modules(module: nn.Module, pins: Traces) -> dict[str, nn.Module]:
    return {name: module.get_submodule(name) for name in pins}


def _is_same(leaf: Any, layout: Layout) -> bool:
    return isinstance(leaf, Tensor) and tuple(leaf.shape) == layout.shape
