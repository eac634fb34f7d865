"""Recipes that compile a network of their row: each row ends soon, alone, as in a script."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from framefleet import Batching, Clip, Renderer, Request, load_model
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.recipes.recipe import Recipe
from tests.tiny import SMALLEST, tiny


def compiles(pipe: Any, request: Request) -> Any:
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    return generate(pipe, request)


@pytest.mark.timeout(100)
@pytest.mark.parametrize("is_batched", [False, True])
def test_rows_whose_recipe_compiles_a_network_equal_plain_calls_declared_or_not(*, is_batched: bool) -> None:
    recipe = Recipe(name="compiles", function=compiles, digest="", is_batched=is_batched)
    renderer = Renderer(
        load_model(tiny("sd"), dtype="fp32"), Batching(min_gain=0), recipes={"compiles": recipe}
    )
    arguments, pipe = SMALLEST["sd"] | {"prompt": "ball"}, load_model(tiny("sd"), dtype="fp32").pipe
    rows = [Request(arguments=arguments, seed=seed, recipe="compiles") for seed in range(3)]
    for clip in renderer.render(rows, progress=False):
        assert isinstance(clip, Clip), clip
        request = Request(arguments=arguments, seed=clip.request.seed)
        with torch.no_grad():
            alone = to_frames(compiles(copy.copy(pipe), request))
        assert np.array_equal(clip.frames, alone)
        assert clip.batch_size == 1
