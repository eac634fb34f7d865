"""Recipes that look at their frames do so on a thread of their own, while the next row denoises."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import nn

from framefleet import Audit, Batching, Clip, Failure, Model, Renderer, Request, load_model
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.render.fused.row_thread import is_away
from tests.tiny import SMALLEST, tiny
from tests.unaudited import clips_in_order

TAILS: dict[int, threading.Thread] = {}  # by seed, of rows of `slow`
AWAY: dict[int, bool] = {}  # by seed, whether the row's last lines ran away from the renderer
HELD = threading.Event()  # while it is not set, rows of `slow` wait as they look


def _rendered(pipe: Any, request: Request) -> Any:
    output = pipe(**request.arguments, generator=request.generator(), output_type="np")
    AWAY[request.seed] = AWAY.get(request.seed, False) or is_away()
    return np.asarray(output.frames)


def looking(pipe: Any, request: Request) -> Any:
    return np.clip(_rendered(pipe, request) * 0.9, 0, 1)


def drawing(pipe: Any, request: Request) -> Any:
    frames = _rendered(pipe, request)
    return np.clip(frames + random.random() * np.random.random(frames.shape) * 0.1, 0, 1)


def decoding(pipe: Any, request: Request) -> Any:
    """Call a network once more after the look, in every row but the first."""
    frames = _rendered(pipe, request)
    if request.seed:
        frames = np.asarray(pipe(**request.arguments, generator=request.generator(), output_type="np").frames)
    return frames


def refining(pipe: Any, request: Request) -> Any:
    """Call networks after the look in every row."""
    frames = _rendered(pipe, request)
    latents = pipe(**request.arguments, generator=request.generator(), output_type="latent").frames
    return np.clip(frames * float(latents.abs().mean()), 0, 1)


def failing(pipe: Any, request: Request) -> Any:
    frames = _rendered(pipe, request)
    if request.seed == 2:
        raise ValueError("a bad tail")
    return frames


def slow(pipe: Any, request: Request) -> Any:
    TAILS[request.seed] = threading.current_thread()
    if request.seed == 3:
        TAILS[2].join(60)  # it is away: its end is news before this row looks
    frames = _rendered(pipe, request)
    if request.seed == 1:
        assert HELD.wait(240)
    if request.seed == 3:
        time.sleep(0.3)  # so that it ends while nothing is left but to wait
    return frames


RECIPES: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (looking, drawing, decoding, refining, failing, slow)
}


@functools.cache
def _model(cache: str = "") -> Model:
    return load_model(tiny("wan"), dtype="fp32", **({"cache": {"type": cache}} if cache else {}))


def _renderer(cache: str = "", max_rows: int = 1, audit: Audit | None = None) -> Renderer:
    AWAY.clear()
    recipes = {name: Recipe(name=name, function=function, digest="") for name, function in RECIPES.items()}
    batching = Batching(max_rows=max_rows, min_gain=0, remember=False)
    return Renderer(_model(cache), batching, recipes=recipes, audit=audit or Audit(every=0))


def _rows(recipe: str, count: int = 4) -> list[Request]:
    sizes = SMALLEST["wan"] | {"max_sequence_length": 32, "num_inference_steps": 2}
    return [
        Request(arguments=sizes | {"prompt": f"ball {seed % 2}"}, seed=seed, recipe=recipe)
        for seed in range(count)
    ]


def _frames(renderer: Renderer, rows: list[Request]) -> dict[int, Any]:
    return {clip.request.seed: clip.frames for clip in clips_in_order(renderer, rows)}


def _judged(rows: list[Request], cache: str = "") -> dict[int, Any]:
    judge = _renderer(cache)
    outcomes = [judge.render_plainly(row, f"{row.seed:032x}") for row in rows]
    assert all(isinstance(outcome, Clip) for outcome in outcomes)
    return {clip.request.seed: to_frames(clip.frames) for clip in outcomes}  # type: ignore[union-attr]


def _are_equal(clips: dict[int, Any], expected: dict[int, Any]) -> bool:
    return clips.keys() == expected.keys() and all(np.array_equal(clips[n], expected[n]) for n in expected)


@pytest.mark.parametrize(("cache", "max_rows"), [("", 1), ("first_block", 1), ("", 3)])
def test_rows_after_the_first_look_away_and_equal_plain_calls(cache: str, max_rows: int) -> None:
    rows = _rows("looking", 6)
    expected = _judged(rows, cache)
    renderer = _renderer(cache, max_rows)
    clips = _frames(renderer, rows[:1]) | _frames(renderer, rows[1:])
    assert AWAY[0] is False and any(AWAY.values())
    assert _are_equal(clips, expected)


@pytest.mark.parametrize(
    ("recipe", "cache"),
    [("drawing", ""), ("decoding", ""), ("decoding", "first_block"), ("refining", "")],
)
def test_what_draws_or_calls_networks_after_it_looked_has_its_bits(recipe: str, cache: str) -> None:
    rows = _rows(recipe)
    expected = _judged(rows, cache)
    clips = _frames(_renderer(cache), rows)
    assert _are_equal(clips, expected)
    assert recipe == "decoding" or not any(AWAY.values())


def test_a_cached_row_that_was_away_is_compared_while_the_next_one_is_under_way() -> None:
    renderer = _renderer("first_block", audit=Audit(every=1))
    clips = _frames(renderer, _rows("looking", 6))
    assert [audited.verdict for audited in renderer.take_audits()] == ["equal"] * len(clips)
    assert any(AWAY.values())


def test_rows_that_may_be_away_add_one_hook_at_most() -> None:
    hooks = nn.modules.module._global_forward_pre_hooks
    num_before = len(hooks)  # of renderers of other tests that were not told to end
    for outcome in _renderer().render(_rows("looking", 6)):
        assert isinstance(outcome, Clip), outcome.traceback
        assert len(hooks) <= num_before + 1
    assert len(hooks) == num_before


def test_a_row_that_fails_away_fails_and_the_others_are_as_they_were() -> None:
    outcomes = {outcome.request.seed: outcome for outcome in _renderer().render(_rows("failing"))}
    assert isinstance(outcomes[2], Failure) and "a bad tail" in str(outcomes[2].error)
    assert all(isinstance(outcomes[seed], Clip) for seed in (0, 1, 3))


def test_the_next_row_denoises_while_one_looks_and_clips_come_as_they_end() -> None:
    HELD.clear()
    late = threading.Timer(300, HELD.set)  # so that the test fails, and does not wait for ever
    late.start()
    seeds = []
    try:
        for outcome in _renderer().render(_rows("slow")):
            seeds.append(outcome.request.seed)
            if len(seeds) == 3:
                assert not HELD.is_set()
                HELD.set()
    finally:
        late.cancel()
    assert seeds == [0, 2, 3, 1]


def test_rows_that_are_away_when_the_caller_stops_are_waited_for_and_forgotten() -> None:
    HELD.clear()
    renderer = _renderer()
    rows = renderer.render(_rows("slow"))
    assert [next(rows).request.seed for _ in range(2)] == [0, 2]
    threading.Timer(0.2, HELD.set).start()
    rows.close()
    for thread in [thread for thread in threading.enumerate() if thread.name == "row"]:
        thread.join(60)
        assert not thread.is_alive()
    assert renderer.num_active == 0
    assert len(_frames(renderer, _rows("slow"))) == 4
