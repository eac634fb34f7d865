"""How inner modules are called in a forward of one row, which tells what is theirs in a fused one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from framefleet.pipeline.hooks.adapters import working_on
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.model.options.regions import separable
from framefleet.pipeline.render.fused.calls import Call, adapters_of
from framefleet.pipeline.render.fused.concatenation import Joint, Layout, joint_of

Forward = Callable[..., Any]


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
    return tuple((name, tuple(map(_shapes, found))) for name, found in traces.items())


def _shapes(trace: Trace) -> tuple[tuple[int, ...] | None, ...]:
    layouts = (*trace.arguments, *trace.outputs)
    return tuple(layout.shape if layout else None for layout in layouts)


def matching_trace(traces: Traces, name: str, arguments: Any, rows: int) -> Trace | None:
    """Return how this fused call looks in a one-row run; None when it is not one that can be parted."""
    return next((trace for trace in traces.get(name, ()) if trace.is_partable(arguments, rows)), None)


def traces_of(module: nn.Module, forward: Forward, call: Call) -> Traces:
    """Run a call alone, with its arguments as they were before any forward changed the row's own."""
    args, kwargs = unflatten(call.structure, call.leaves)
    with working_on(adapters_of([call])):
        return traced(module, forward, args, kwargs)[0]


def traced(
    module: nn.Module, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Traces, Any]:
    """Run one row; return how every inner module's arguments and output are laid out, and its own output."""
    traces: dict[str, list[Trace]] = {}

    def note(name: str, inner: Forward, *args: Any, **kwargs: Any) -> Any:
        arguments = _layouts_of((args, kwargs))  # before the call, which may change them in place
        output = inner(*args, **kwargs)
        add_trace(traces, name, Trace(arguments, _layouts_of(output)))
        return output

    with intercept(separable(module), note):
        output = forward(*args, **kwargs)
    return traces, output


def add_trace(traces: dict[str, list[Trace]], name: str, trace: Trace) -> None:
    known = traces.setdefault(name, [])
    if trace not in known:
        known.append(trace)


def _is_same(leaf: Any, layout: Layout) -> bool:
    return isinstance(leaf, Tensor) and tuple(leaf.shape) == layout.shape


def _layouts_of(value: Any) -> tuple[Layout | None, ...]:
    return tuple(Layout.of(leaf) for leaf in flatten(value, holders=[])[0])
