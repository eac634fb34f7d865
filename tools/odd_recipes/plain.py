"""Render rows as a script would: plain calls, each in a process that has rendered nothing before."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from framefleet.pipeline.guards.named_function import named_function
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.request import Request
from tests.loras import WEIGHTS, plain_pipe
from tools.odd_recipes.forked import LIMIT_S, in_fork


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """The digest of a row's frames, or the error that the script ends with."""

    sha256: str | None = None
    error: str | None = None


def plain_calls(model: str, loras: dict[str, Path], rows: Sequence[Request]) -> list[Plain]:
    """Call the recipe of each row on a pipeline that was just loaded, each in its own fork."""
    return in_fork(_each_in_a_fork, model, loras, rows, limit_s=LIMIT_S + 20.0 * len(rows))


def _each_in_a_fork(model: str, loras: dict[str, Path], rows: Sequence[Request]) -> list[Plain]:
    bare = plain_pipe(model, torch.float32)
    adapted = plain_pipe(model, torch.float32, loras) if loras else bare
    return [in_fork(_call, adapted if "lora" in row.arguments else bare, row) for row in rows]


def _call(pipe: Any, row: Request) -> Plain:
    arguments = dict(row.arguments)
    if weights := WEIGHTS[arguments.pop("lora", None)]:
        pipe.set_adapters([f"my_{name}" for name in weights], list(weights.values()))
    function = generate if row.recipe == "generate" else named_function(row.recipe)
    columns = list(inspect.signature(function).parameters)[2:]
    own = {name: arguments.pop(name) for name in columns if name in arguments}
    for seed_globals in (torch.manual_seed, np.random.seed, random.seed):
        seed_globals(row.seed)
    try:
        frames = to_frames(function(pipe, replace(row, arguments=arguments), **own))
    except Exception as error:  # whatever the recipe or diffusers raises
        return Plain(error=f"{type(error).__name__}: {error}")
    return Plain(sha256=frames_sha256(frames))
