"""Recipes with state that no copy of a pipeline finds: `recipe: tests.hidden_state:remembers`."""

from __future__ import annotations

import random
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel

import framefleet
from framefleet import Request
from framefleet.pipeline.recipes.catalog import generate

QUICK = 2  # steps of a row that never looks at the momentum


class _Library:
    """Keeps its state as a library does: no module of this folder shows it, which are compared."""

    def __init__(self) -> None:
        self.momentum: list[torch.Tensor] = []
        self.steps: list[tuple[object, str]] = []  # of all rows: whose it was, and its prompt


_Library.__module__ = "a_library"
_library = _Library()


class Accumulating(WanTransformer3DModel):
    """Adds to each prediction the mean of those before it, and never forgets them."""

    mean: Any = 0.0

    def forward(self, **named: Any) -> Any:
        (prediction,) = super().forward(**named)
        self.mean = 0.5 * self.mean + prediction.mean()
        return (prediction + 0.3 * self.mean,)


class Remembering(UniPCMultistepScheduler):
    """Steps by a momentum that each call begins anew, but a library keeps: calls that take turns mix it up.

    The first two steps are without.
    """

    def set_timesteps(self, *arguments: Any, **named: Any) -> None:
        _library.momentum.clear()
        super().set_timesteps(*arguments, **named)

    def step(self, model_output: Any, timestep: Any, sample: Any, **named: Any) -> Any:
        step = self.step_index or 0
        (stepped,) = super().step(model_output, timestep, sample, return_dict=False)
        _library.momentum.append(stepped.mean())
        return (stepped + 0.5 * sum(_library.momentum) if step >= QUICK else stepped,)


@framefleet.recipe(batched=True)
def remembers(pipe: Any, request: Request) -> Any:
    """Plain calls repeat, also in one process; rows in company do not equal them."""
    pipe.scheduler = Remembering.from_config(pipe.scheduler.config)
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def wanders(pipe: Any, request: Request) -> Any:
    """No two calls are equal."""
    frames = generate(pipe, request).frames[0]
    return (frames * (1 - 0.5 * random.SystemRandom().random())).clip(0, 1)


class Watched(UniPCMultistepScheduler):
    """Notes each step, so that a row knows which others took turns with it."""

    prompt = ""

    def step(self, *arguments: Any, **named: Any) -> Any:
        _library.steps.append((self, self.prompt))
        return super().step(*arguments, **named)


@framefleet.recipe(batched=True)
def unlucky(pipe: Any, request: Request) -> Any:
    """Rows whose prompt ends in "!" are dark if they are batched; others are as `generate` makes them."""
    frames, others = _watched(pipe, request)
    return frames * 0.5 if others and request.arguments["prompt"].endswith("!") else frames


def _watched(pipe: Any, request: Request) -> tuple[Any, set[str]]:
    """Return frames, and the prompts of rows that took steps between the first and the last one of this."""
    pipe.scheduler = Watched.from_config(pipe.scheduler.config)
    pipe.scheduler.prompt, scheduler = request.arguments["prompt"], pipe.scheduler
    frames = generate(pipe, request).frames[0]
    mine = [number for number, (whose, _) in enumerate(_library.steps) if whose is scheduler]
    between = _library.steps[mine[0] : mine[-1] + 1]
    return frames, {prompt for whose, prompt in between if whose is not scheduler}
