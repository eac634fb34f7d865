"""Recipes that leave something behind for all later rows of their process, as scripts do at their top."""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers import UniPCMultistepScheduler as Scheduler
from torch import nn

import framefleet
from framefleet import Request
from framefleet.pipeline.recipes.recipe import generate


def stronger_steps(pipe: Any, request: Request) -> Any:
    """Patch the class of the row's scheduler, once."""
    if not hasattr(Scheduler, "plain_step"):
        Scheduler.plain_step = plain = Scheduler.step

        def step(self: Any, model_output: Any, *args: Any, **kwargs: Any) -> Any:
            return plain(self, model_output * 1.2, *args, **kwargs)

        Scheduler.step = step
    return generate(pipe, request)


def seamless(pipe: Any, request: Request) -> Any:
    """Have the decoder pad in circles, and leave it so."""
    for module in pipe.vae.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    return generate(pipe, request)


@framefleet.recipe(batched=True)
def harmless(pipe: Any, request: Request) -> Any:
    return generate(pipe, request)


def drifting(pipe: Any, request: Request) -> Any:
    """Render each row a little otherwise than the last one of this process: nobody watches libraries."""
    diffusers.drift = getattr(diffusers, "drift", 1.0) * 0.9
    output = generate(pipe, request)
    output.frames = output.frames * diffusers.drift
    return output
