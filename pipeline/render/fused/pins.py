"""Run a fused forward in which chosen calls of inner modules, the pins, go row by row; kinds of plans.

How inner modules are called in a forward of one row, their traces, tells what is a row's in a fused one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from framefleet.pipeline.hooks.adapters import working_on, working_rows
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.model.options.regions import separable
from framefleet.pipeline.render.fused.calls import Axes, Call, Method, adapters_of
from framefleet.pipeline.render.fused.concatenation import (
    Joint,
    Layout,
    join_calls,
    joint_of,
    part,
    row_slice,
    stack,
    with_holders,
)

Outputs = list[tuple[list[Any], Hashable]]  # of one call of a module for each row, taken apart
Forward = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """How one call of a module looks in a one-row run: the layouts of its arguments' and output's leaves."""

    arguments: tuple[Layout | None, ...]
    outputs: tuple[Layout | None, ...]
    joints: tuple[Joint | None, ...] = ()  # how rows' outputs are joined, by leaf; of calls that are pinned

    def joints_of(self, arguments: Any, rows: int) -> list[Joint | None] | None:
        """Return where each leaf of a fused call carries the rows, None where it is as in the one-row run.

        None for a call if one of them is something else.
        """
        leaves, _ = flatten(arguments, holders=[])
        if len(leaves) != len(self.arguments):
            return None
        joints = []
        for leaf, layout in zip(leaves, self.arguments, strict=True):
            joint, is_tensor = joint_of(leaf, rows, layout), isinstance(leaf, Tensor)
            is_same = is_tensor and tuple(leaf.shape) == layout.shape if layout else not is_tensor
            if joint is None and not is_same:
                return None
            joints.append(joint)
        return joints

    def seen_in(self, output: Any, rows: int) -> Trace:
        """Return it with the joints of a fused call's output: None where that is one for all rows.

        Without any where it is not reported.
        """
        leaves, _ = flatten(output, holders=[])
        if len(leaves) != len(self.outputs):  # lists of rows, which say nothing of where they come from
            return replace(self, joints=())
        pairs = zip(leaves, self.outputs, strict=True)
        return replace(self, joints=tuple(joint_of(leaf, rows, layout) for leaf, layout in pairs))


Traces = Mapping[str, Sequence[Trace]]  # by a module's name: how its calls in one forward look, if not alike


def look_inside(traces: Traces) -> Hashable:
    """The shapes of inner modules' calls. Strides may differ: every shape of call is proven for itself."""

    def shapes(trace: Trace) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(layout.shape if layout else None for layout in (*trace.arguments, *trace.outputs))

    return tuple((name, tuple(map(shapes, calls))) for name, calls in traces.items())


def matching_trace(traces: Traces, name: str, arguments: Any, rows: int) -> Trace | None:
    """Return how this fused call looks in a one-row run; None when it is not one that can be parted."""
    return next((one for one in traces.get(name, ()) if any(one.joints_of(arguments, rows) or ())), None)


def traces_of(method: Method, call: Call) -> Traces:
    """Run a call alone, with its arguments as they were before any forward changed the row's own."""
    args, kwargs = unflatten(call.structure, call.leaves)
    with working_on(adapters_of([call])):
        return traced(method, args, kwargs)[0]


def traced(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Traces, Any]:
    """Run one row; return how every inner module's arguments and output are laid out, and its own output."""
    traces: dict[str, list[Trace]] = {}

    def note(name: str, inner: Forward, *args: Any, **kwargs: Any) -> Any:
        arguments = _layouts_of((args, kwargs))  # before the call, which may change them in place
        output = inner(*args, **kwargs)
        add_trace(traces, name, Trace(arguments, _layouts_of(output)))
        return output

    with intercept(separable(method.network), note):
        output = method.call(*args, **kwargs)
    return traces, output


def add_trace(traces: dict[str, list[Trace]], name: str, trace: Trace) -> None:
    own = traces.setdefault(name, [])
    if trace not in own:
        own.append(trace)


def _layouts_of(value: Any) -> tuple[Layout | None, ...]:
    return tuple(Layout.of(leaf) for leaf in flatten(value, holders=[])[0])


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run a forward of some size."""

    axes: Axes  # along which the calls are joined
    pins: Traces  # the calls of inner modules that go row by row
    output: Any  # the `layouts` of what one row gets, see `with_holders`


class Rows:
    """Runs pinned calls row by row within one fused forward. Put around modules by `intercept`."""

    def __init__(self, rows: int, pins: Traces) -> None:
        self.rows = rows
        self.pins = pins
        self.is_nested = False  # inside a call that goes row by row already

    def __call__(self, name: str, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        trace = None if self.is_nested else matching_trace(self.pins, name, (args, kwargs), self.rows)
        if trace is None:
            return forward(*args, **kwargs)
        return joined(self.by_row(forward, args, kwargs, trace), trace)

    def by_row(
        self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace
    ) -> Outputs:
        leaves, structure = flatten((args, kwargs), holders=[])
        outputs = []
        self.is_nested = True
        try:
            for row in range(self.rows):
                own_args, own_kwargs = unflatten(
                    structure,
                    [
                        leaf if joint is None else row_slice(leaf, row, self.rows, layout, joint)
                        for leaf, layout in zip(leaves, trace.arguments, strict=True)
                        for joint in [joint_of(leaf, self.rows, layout)]
                    ],
                )
                with working_on(working_rows()[row : row + 1]):
                    outputs.append(flatten(forward(*own_args, **own_kwargs), holders=[]))
        finally:
            self.is_nested = False
        return outputs


def joined(outputs: Outputs, trace: Trace) -> Any:
    columns = zip(*(leaves for leaves, _ in outputs), strict=True)
    leaves = [stack(column, joint) for column, joint in zip(columns, trace.joints, strict=True)]
    return unflatten(outputs[0][1], leaves)


def run_fused(method: Method, calls: Sequence[Call], plan: Plan) -> list[Any]:
    """Run one forward for all calls; return each row's output and what its holders hold then."""
    with pinned(method, Rows(len(calls), plan.pins)):
        return part(run_joined(method, calls, plan.axes), rows=len(calls), like=plan.output)


def run_joined(method: Method, calls: Sequence[Call], axes: Axes) -> tuple[Any, tuple[Any, ...]]:
    """Run one forward for all calls; return what it returns, see `with_holders`."""
    args, kwargs = join_calls(calls, axes)
    with working_on(adapters_of(calls)):
        output = method.call(*args, **kwargs)
    return with_holders(output, args, kwargs) if calls[0].holders else (output, ())


def pinned(method: Method, rows: Rows) -> AbstractContextManager[None]:
    """Have pinned calls go row by row while the block runs."""
    return intercept({name: method.network.get_submodule(name) for name in rows.pins}, rows)


class Kind(NamedTuple):
    """What calls have in common with others that are run by one plan.

    Rows of LoRAs are proven for themselves, by which there are and which of them differ between rows: a
    layer whose rows are elsewhere than outermost shows only where rows differ in what it has.
    """

    look: Hashable
    axes: Axes
    rows: int
    loras: frozenset[str]
    differing: frozenset[str]
