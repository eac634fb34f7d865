"""Recipes with state that no copy of a pipeline finds: `recipe: tests.hidden_state:remembers`."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UniPCMultistepScheduler

from framefleet.pipeline.recipes.recipe import generate
from framefleet.pipeline.request import Request

QUICK = 2  # steps of a row that never looks at the momentum

_momentum: list[torch.Tensor] = []
_calls: list[str] = []


class Remembering(UniPCMultistepScheduler):
    """Steps by a momentum that each call begins anew, but a module keeps: calls that take turns mix it up.

    The first two steps are without.
    """

    def set_timesteps(self, *arguments: Any, **named: Any) -> None:
        _momentum.clear()
        super().set_timesteps(*arguments, **named)

    def step(self, model_output: Any, timestep: Any, sample: Any, **named: Any) -> Any:
        step = self.step_index or 0
        (stepped,) = super().step(model_output, timestep, sample, return_dict=False)
        _momentum.append(stepped.mean())
        return (stepped + 0.5 * sum(_momentum) if step >= QUICK else stepped,)


def remembers(pipe: Any, request: Request) -> Any:
    """Plain calls repeat, also in one process; rows in company do not equal them."""
    pipe.scheduler = Remembering.from_config(pipe.scheduler.config)
    return generate(pipe, request)


def wanders(pipe: Any, request: Request) -> Any:
    """No two calls are equal."""
    _calls.append(request.arguments["prompt"])
    frames = generate(pipe, request).frames[0]
    return (frames * (1 - 0.01 * (len(_calls) % 50))).clip(0, 1)
