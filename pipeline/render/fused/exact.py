"""Find which calls to pin so that a fused forward is bit-equal to one-row forwards.

Each module of the denoiser runs both ways on the same inputs, leaves first, until the whole forward equals
the one-row forwards. Where a module's values agree but not the strides of its output, the next one might
round differently, so it is pinned as well.

What runs as one piece (`model/options/regions.py`) is not looked into. Not covered: a model whose one-row
forward is not repeatable itself; its sizes are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.pipeline.hooks.adapters import working_on
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.memory import is_out_of_memory
from framefleet.pipeline.model.options.regions import separable
from framefleet.pipeline.render.fused.calls import (
    Axes,
    Call,
    Method,
    adapters_of,
    are_unlike,
    bits,
    fingerprint,
    masks_of,
    with_masks,
)
from framefleet.pipeline.render.fused.concatenation import layouts, with_holders
from framefleet.pipeline.render.fused.pins import (
    Forward,
    Plan,
    Rows,
    Trace,
    Traces,
    add_trace,
    joined,
    look_inside,
    matching_trace,
    pinned,
    run_fused,
    run_joined,
    traces_of,
)

log = logging.getLogger(__name__)

# Rounding to half precision hides most differences of the sums inside: about one output in 10,000 shows one
# (fp32 sums differ by 1e-6, bf16 steps are 4e-3), so 2**17 equal outputs leave a chance of one in 100,000 to
# overlook a kernel that sums in another order. In fp32 every second output shows it.
EVIDENCE_HALF = 2**17
EVIDENCE_FLOAT = 2**12
# A module too small to give that evidence in so few random trials is pinned: to run it row by row is cheap.
MAX_TRIALS = 64


def probe(
    method: Method,
    calls: Sequence[Call],
    outputs: Sequence[Any],
    axes: Axes,
    suspects: Collection[str] = (),
) -> Plan | None:
    """Return a plan under which the fused forward of `calls` gives exactly `outputs`, or None.

    outputs: what one-row forwards of the same calls returned, see `with_holders`. axes: to join them by.
    suspects: modules that are pinned in any case, as they were in another process, so that nothing is tried
    without them. To pin one too many changes no bit, and all others are looked at as ever.
    """
    traces = traces_of(method, calls[0])
    pins: dict[str, Sequence[Trace]] = {}
    like = layouts(outputs[0])
    inner = separable(method.network)
    first = max((_height(inner[name]) for name in suspects if name in inner), default=0)
    for height in range(max(1, _height(method.network))):
        level = {name: child for name, child in inner.items() if _height(child) == height}
        pins |= _differing(method, calls, level, traces, Plan(axes, pins, like), suspects)
        if height < first:
            continue
        plan = Plan(axes, dict(pins), like)
        if are_equal(run_fused(method, calls, plan), outputs):
            return plan if holds_for_others(method, calls, plan) else None
    return None


def _differing(
    method: Method,
    calls: Sequence[Call],
    level: Mapping[str, nn.Module],
    traces: Traces,
    plan: Plan,
    suspects: Collection[str],
) -> dict[str, list[Trace]]:
    """Run the fused forward with every module of `level` both ways; return the calls that differ.

    suspects: modules whose calls are taken to differ.
    """
    rows = Rows(len(calls), plan.pins)
    by_name: dict[str, list[Trace]] = {}

    def compare(name: str, inner: Forward, *args: Any, **kwargs: Any) -> Any:
        trace = None if rows.is_nested else matching_trace(traces, name, (args, kwargs), rows.rows)
        if trace is None:
            return inner(*args, **kwargs)
        try:
            outputs = rows.by_row(inner, args, kwargs, trace)
        except (RuntimeError, ValueError, IndexError) as error:
            # It cannot be called for one row: experts are given the tokens of all rows together.
            if is_out_of_memory(error):
                raise
            return inner(*args, **kwargs)
        fused = inner(*args, **kwargs)
        trace = trace.seen_in(fused, rows.rows)
        if set(trace.joints) <= {None}:
            return fused
        by_row = joined(outputs, trace)
        is_equal = name not in suspects and _agree(fused, by_row, trace)
        if is_equal and _is_proven(rows, inner, args, kwargs, trace, fused):
            return fused
        add_trace(by_name, name, trace)
        return by_row

    with pinned(method, rows), intercept(level, compare):
        run_joined(method, calls, plan.axes)
    return by_name


def _is_proven(
    rows: Rows, inner: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace, fused: Any
) -> bool:
    """Whether random inputs agree too, as many as it takes to trust a comparison in this precision."""
    leaves, structure = flatten((args, kwargs), holders=[])
    outputs = [leaf for leaf in flatten(fused)[0] if isinstance(leaf, Tensor)]
    size = sum(output.numel() for output in outputs)
    if not size or not any(isinstance(leaf, Tensor) and leaf.is_floating_point() for leaf in leaves):
        return True  # a gather by index does not round
    is_half = outputs[0].dtype in (torch.float16, torch.bfloat16)
    needed = (EVIDENCE_HALF if is_half else EVIDENCE_FLOAT) - size
    if needed > MAX_TRIALS * size:
        return False
    generator = torch.Generator(outputs[0].device).manual_seed(0)
    for _ in range(-(-needed // size)):
        random = [
            torch.empty_like(leaf).normal_(generator=generator)  # empty_like keeps the strides
            if isinstance(leaf, Tensor) and leaf.is_floating_point()
            else leaf
            for leaf in leaves
        ]
        trial_args, trial_kwargs = unflatten(structure, random)
        by_row = joined(rows.by_row(inner, trial_args, trial_kwargs, trace), trace)
        if not _agree(inner(*trial_args, **trial_kwargs), by_row, trace):
            return False
    return True


def _agree(fused: Any, by_row: Any, trace: Trace) -> bool:
    """Whether values and strides are those of the one-row runs."""
    leaves, _ = flatten(fused, holders=[])
    return are_equal(fused, by_row) and all(
        layout is None or layout.fits(leaf, joint.axis if joint else None)
        for leaf, layout, joint in zip(leaves, trace.outputs, trace.joints, strict=True)
    )


def _height(module: nn.Module) -> int:
    return 1 + max((_height(child) for child in module.children()), default=-1)


def are_equal(mine: Any, theirs: Any) -> bool:
    """Whether all tensors are equal, bit for bit, and stand in the same places."""
    return all(_is_equal(a, b) for a, b in zip(_leaves(mine), _leaves(theirs), strict=True))


def _is_equal(mine: Any, theirs: Any) -> bool:
    if not isinstance(mine, Tensor) or not isinstance(theirs, Tensor):
        return type(mine) is type(theirs)
    if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
        return False
    return torch.equal(bits(mine), bits(theirs))


def are_close(mine: Any, theirs: Any) -> bool:
    """Whether all tensors agree as far as another order of summing allows: 1 % of their largest value."""
    pairs = zip(_leaves(mine), _leaves(theirs), strict=True)
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= 0.01 * b.abs().max())
        for a, b in pairs
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.is_floating_point() and a.numel()
    )


def _leaves(value: Any) -> list[Any]:
    return flatten(value, holders=[])[0]


def masks_matter(method: Method, call: Call) -> bool:
    """Whether the values of token masks change what inner modules are called with.

    Some networks cut a text off where it ends, or leave out a mask where nothing is masked.
    """
    if not masks_of(call):
        return False
    looks = set()
    for other in (call, with_masks(call, keep=1.0), with_masks(call, keep=0.5)):
        try:
            looks.add(look_inside(traces_of(method, other)))
        except Exception as error:  # whatever a network raises if the mask is not one of tokens
            if is_out_of_memory(error):
                raise
            log.debug("%s takes no other masks: %s", call.module, error)
            return False
    return len(looks) > 1


def holds_for_others(method: Method, calls: Sequence[Call], plan: Plan) -> bool:
    """Whether a plan is exact for rows of other lengths too, or only proven for those that share it.

    Some networks cut the text of a single row off at its length, where they mask that of several: such rows
    agree as long as every text is full, and in half precision also by chance.
    """
    if are_unlike(calls) and not is_joined_inside(method, calls, plan):
        return False
    masks = masks_of(calls[0])
    if not masks:
        return True
    if masks_matter(method, calls[0]):
        prints = {tuple(fingerprint(call.leaves[place]) for place in masks) for call in calls}
        return len(prints) == 1 and is_joined_inside(method, calls, plan)
    others = [with_masks(call, keep=(i + 1) / (len(calls) + 1)) for i, call in enumerate(calls)]
    alone = []
    try:
        for other in others:
            args, kwargs = other.arguments()
            with working_on(adapters_of([other])):
                alone.append(with_holders(method.call(*args, **kwargs), args, kwargs))
    except Exception as error:  # as above
        if is_out_of_memory(error):
            raise
        log.debug("%s takes no other masks: %s", calls[0].module, error)
        return True
    return are_equal(run_fused(method, others, plan), alone)


def is_joined_inside(method: Method, calls: Sequence[Call], plan: Plan) -> bool:
    """Whether a fused forward calls every inner module with the rows joined, or with what a row alone has."""
    traces = traces_of(method, calls[0])
    unlike = []

    def look(name: str, inner: Forward, *args: Any, **kwargs: Any) -> Any:
        if all(trace.joints_of((args, kwargs), len(calls)) is None for trace in traces.get(name, ())):
            unlike.append(name)
        return inner(*args, **kwargs)

    with intercept(separable(method.network), look):
        run_joined(method, calls, plan.axes)
    if unlike:
        log.debug("%s: %s is not called with rows joined", calls[0].module, unlike[0])
    return not unlike
