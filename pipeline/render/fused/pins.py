"""Run a fused forward in which chosen calls of inner modules, the pins, go row by row; kinds of plans."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from framefleet.pipeline.hooks.adapters import working_on, working_rows
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.render.fused.calls import Axes, Call, adapters_of
from framefleet.pipeline.render.fused.concatenation import (
    join_calls,
    joint_of,
    part,
    row_slice,
    stack,
    with_holders,
)
from framefleet.pipeline.render.fused.traces import Forward, Trace, Traces, matching_trace

Outputs = list[tuple[list[Any], Hashable]]  # of one call of a module for each row, taken apart


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


def plan_kind(calls: Sequence[Call], look: Hashable, axes: Axes, *, by_weights: bool = False) -> Kind:
    """Return that of calls that look alike. by_weights: all have equal ones, and weights count."""
    if by_weights:
        names = frozenset(f"{name}:{weight}" for name, weight in calls[0].adapters.in_force)
        return Kind(look, axes, len(calls), names, frozenset())
    pairs = [set(adapters.in_force) for adapters in adapters_of(calls)]
    used = pairs[0].union(*pairs)
    differing = frozenset(name for name, _ in used - pairs[0].intersection(*pairs))
    return Kind(look, axes, len(calls), frozenset(name for name, _ in used), differing)


def by_loras(calls: Sequence[Call], places: Sequence[int]) -> list[list[int]]:
    """Part calls, by their places, into those of equal LoRAs."""
    found: dict[Hashable, list[int]] = {}
    for place in places:
        found.setdefault(calls[place].adapters.in_force, []).append(place)
    return list(found.values())
