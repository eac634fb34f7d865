"""Recipes that go wrong for marked rows, for jobs of the tests: `recipe: tests.faults:raises` and so on."""

from __future__ import annotations

import functools
import os
import signal
from typing import Any

import torch
from diffusers import WanTransformer3DModel

from framefleet.pipeline.recipes.recipe import generate
from framefleet.pipeline.request import Request


def raises(pipe: Any, request: Request) -> Any:
    """Raise for rows whose prompt says poison."""
    if "poison" in request.arguments["prompt"]:
        raise ValueError("this row is poison")
    return generate(pipe, request)


def raises_while(pipe: Any, request: Request, *, broken: str = "") -> Any:
    """Raise while a file is there."""
    if os.path.exists(broken):
        raise ValueError("broken")
    return generate(pipe, request)


def kills(pipe: Any, request: Request) -> Any:
    """Kill the worker for rows whose prompt says killer, as a crash in native code would."""
    if "killer" in request.arguments["prompt"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return generate(pipe, request)


def fits_three(pipe: Any, request: Request) -> Any:
    """Run out of memory in forwards of more than three rows."""
    _limit_forwards()
    return generate(pipe, request)


@functools.cache
def _limit_forwards() -> None:
    forward = WanTransformer3DModel.forward

    @functools.wraps(forward)
    def limited(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if hidden_states.shape[0] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory: a test's own limit of three rows")
        return forward(self, hidden_states, *args, **kwargs)

    WanTransformer3DModel.forward = limited


def never_fits(pipe: Any, request: Request) -> Any:
    """Run out of memory for rows whose prompt says huge, whatever else runs."""
    if "huge" in request.arguments["prompt"]:
        raise torch.OutOfMemoryError("CUDA out of memory: a row that never fits")
    return generate(pipe, request)


def scaled(pipe: Any, request: Request, *, gain: float = 1.0) -> Any:
    """Multiply the frames by a parameter of the recipe's own."""
    return (generate(pipe, request).frames[0] * gain).clip(0, 1)


def tells(pipe: Any, request: Request) -> Any:
    """Raise with a text of the environment's, as libraries do that quote what they were given; kill once."""
    if "poison" in request.arguments["prompt"]:
        raise ValueError(os.environ["QUOTED"])
    if "killer" in request.arguments["prompt"] and not os.path.exists(os.environ["KILLED"]):
        open(os.environ["KILLED"], "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return generate(pipe, request)
