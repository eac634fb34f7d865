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


@pytest.mark.filterwarnings("ignore:rows of .* are rendered in a process that has run")
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

    def plain(seed: int, odd: float) -> np.ndarray:
        pipe.scheduler, pipe.unet = type(scheduler).from_config(scheduler.config), unet
        return to_frames(function(pipe, Request(arguments=sizes, seed=seed), odd=odd))

    for seed, (odd, clip) in enumerate(zip(ODDS, clips, strict=True)):
        frames = plain(seed, odd)
        assert np.array_equal(clip.frames, frames)
        assert not odd or not np.array_equal(frames, plain(seed, 0.0)), "the recipe changes frames"
    assert (max(clip.batch_size for clip in clips) > 1) == (name in BATCHED)
