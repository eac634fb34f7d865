"""Whether outputs agree, and whether a plan that is exact for some rows is so for others.

Others may have other lengths and other masks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.pipeline.hooks.adapters import working_on
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.memory import is_out_of_memory
from framefleet.pipeline.model.options.regions import separable
from framefleet.pipeline.render.fused.calls import (
    Call,
    adapters_of,
    are_unlike,
    bits,
    fingerprint,
    masks_of,
    with_masks,
)
from framefleet.pipeline.render.fused.concatenation import join_calls, with_holders
from framefleet.pipeline.render.fused.pins import Plan, run_fused
from framefleet.pipeline.render.fused.traces import Forward, look_inside, traces_of

log = logging.getLogger(__name__)


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


def masks_matter(module: nn.Module, forward: Forward, call: Call) -> bool:
    """Whether what masks of tokens say changes what inner modules are called with.

    Some networks cut a text off where it ends, or leave out a mask where nothing is masked. Rows whose masks
    differ are something else to them in a batch than alone, and round differently.
    """
    if not masks_of(call):
        return False
    looks = set()
    for other in (call, with_masks(call, keep=1.0), with_masks(call, keep=0.5)):
        try:
            looks.add(look_inside(traces_of(module, forward, other)))
        except Exception as error:  # whatever a network says to a mask that is none of tokens
            if is_out_of_memory(error):
                raise
            log.debug("%s takes no other masks: %s", type(module).__name__, error)
            return False
    return len(looks) > 1


def holds_for_others(module: nn.Module, forward: Forward, calls: Sequence[Call], plan: Plan) -> bool:
    """Whether a plan is exact for rows of other lengths too, or only proven for those that share it.

    Some networks cut the text of a single row off at its length, where they mask that of several: such rows
    agree as long as every text is full, and in half precision also by chance.
    """
    if are_unlike(calls) and not is_joined_inside(module, forward, calls, plan):
        return False
    if not masks_of(calls[0]):
        return True
    if masks_matter(module, forward, calls[0]):
        return _have_equal_masks(calls) and is_joined_inside(module, forward, calls, plan)
    others = [with_masks(call, keep=(i + 1) / (len(calls) + 1)) for i, call in enumerate(calls)]
    try:
        alone = [_alone(forward, other) for other in others]
    except Exception as error:  # as above
        log.debug("%s takes no other masks: %s", type(module).__name__, error)
        return True
    return are_equal(run_fused(module, forward, others, plan), alone)


def _have_equal_masks(calls: Sequence[Call]) -> bool:
    masks = masks_of(calls[0])
    return len({tuple(fingerprint(call.leaves[place]) for place in masks) for call in calls}) == 1


def is_joined_inside(module: nn.Module, forward: Forward, calls: Sequence[Call], plan: Plan) -> bool:
    """Whether a fused forward calls every inner module with the rows joined, or with what a row alone has."""
    traces = traces_of(module, forward, calls[0])
    unlike = []

    def look(name: str, inner: Forward, *args: Any, **kwargs: Any) -> Any:
        if not any(trace.is_alike((args, kwargs), len(calls)) for trace in traces.get(name, ())):
            unlike.append(name)
        return inner(*args, **kwargs)

    args, kwargs = join_calls(calls, plan.axes)
    with working_on(adapters_of(calls)), intercept(separable(module), look):
        forward(*args, **kwargs)
    if unlike:
        log.debug("%s: %s is not called with rows joined", type(module).__name__, unlike[0])
    return not unlike


def _alone(forward: Forward, call: Call) -> Any:
    args, kwargs = call.arguments()
    with working_on(adapters_of([call])):
        return with_holders(forward(*args, **kwargs), args, kwargs)
