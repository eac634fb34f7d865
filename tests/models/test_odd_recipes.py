"""Rows of recipes that change what rows share, or call pipelines oddly, equal plain calls."""

from __future__ import annotations

import numpy as np
import pytest

from framefleet import Request, load_model
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.recipes.recipe import Recipe
from tests.odd_recipes import ALONE, BATCHED
from tests.tiny import SMALLEST, tiny
from tests.unaudited import clips_in_order, unaudited

ODDS = (0.0, 0.3, 0.0, 0.5)


@pytest.mark.parametrize("name", [*ALONE, *BATCHED])
def test_rows_of_an_odd_recipe_equal_plain_calls(name: str) -> None:
    function = (ALONE | BATCHED)[name]
    recipe = Recipe(name=name, function=function, digest="", is_batched=name in BATCHED)
    sizes = SMALLEST["sd"] | {"prompt": "a red ball", "num_inference_steps": 4}
    rows = [Request(arguments={**sizes, "odd": odd}, seed=seed, recipe=name) for seed, odd in enumerate(ODDS)]
    renderer = unaudited(load_model(tiny("sd"), dtype="fp32"), recipes={name: recipe})
    clips = clips_in_order(renderer, rows)
    pipe = load_model(tiny("sd"), dtype="fp32").pipe
    scheduler, unet = pipe.scheduler, pipe.unet
    for row, odd, clip in zip(rows, ODDS, clips, strict=True):
        pipe.scheduler, pipe.unet = type(scheduler).from_config(scheduler.config), unet
        plain = Request(arguments=sizes, seed=row.seed)
        frames = to_frames(function(pipe, plain, odd=odd))
        assert np.array_equal(clip.frames, frames)
        if odd:
            assert not np.array_equal(frames, to_frames(function(pipe, plain))), "the recipe changes frames"
    assert (max(clip.batch_size for clip in clips) > 1) == (name in BATCHED)
