"""A pipeline and the arguments of its call in, the first call of its denoiser out. No forward is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from framefleet.pipeline.hooks.global_draws import drawing_from
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.model.own_pipeline import own_pipeline
from framefleet.pipeline.render.fused.calls import Call, parse_call


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A denoiser's first call, and the noise scheduler as the pipeline has set it for its steps."""

    call: Call
    scheduler: Any


class _Reached(BaseException):
    """Leaves a pipeline's `__call__`; no Exception, so that nothing on the way takes it for an error."""

    def __init__(self, call: Call) -> None:
        self.call = call


@torch.no_grad()
def capture(pipe: Any, arguments: Mapping[str, Any], *, denoisers: Mapping[str, Any], seed: int) -> Captured:
    """Run `pipe` up to the first forward of one of its `denoisers`, and leave it there.

    arguments: of the pipeline's call; seed: of what it draws. Of a call that joins both prompts of guidance,
    the first half is returned: without the prompt. Nothing stays on pipeline or modules.
    """
    own = own_pipeline(pipe)
    own.set_progress_bar_config(disable=True)
    try:
        # Without the casts of a training step: it must be the same call wherever it is made.
        with (
            intercept(denoisers, _reach),
            torch.autocast(pipe.device.type, enabled=False),
            drawing_from(seed),
        ):
            own(**arguments, generator=torch.Generator("cpu").manual_seed(seed))
    except _Reached as reached:
        return Captured(call=reached.call, scheduler=own.scheduler)
    raise AssertionError(f"{type(pipe).__name__} ended without a call of {', '.join(denoisers)}")


def _reach(name: str, _: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    call = parse_call(name, args, kwargs)
    leaves, structure = flatten((args, kwargs))
    own = [leaf[:1] if isinstance(leaf, Tensor) and _is_of(leaf, call.batch) else leaf for leaf in leaves]
    raise _Reached(replace(call, leaves=own, structure=structure, given=None, batch=1))


def _is_of(leaf: Tensor, batch: int) -> bool:
    return leaf.dim() > 0 and leaf.shape[0] == batch
