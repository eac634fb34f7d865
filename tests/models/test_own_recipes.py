"""Rows of a user's recipe in one process: alone, odd or compiled, texts encoded once, nothing put back."""

from __future__ import annotations

import builtins
import copy
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from framefleet import Audit, Batching, Clip, Model, RecipeError, Renderer, Request, load_model
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.render.audit.verdict import EQUAL, EQUAL_HERE, NOT_COMPARED
from tests.odd_recipes import ALONE, BATCHED
from tests.tiny import SMALLEST, tiny
from tests.unaudited import clips_in_order, unaudited


def sharper(pipe: Any, request: Request, *, odd: float = 0.0) -> Any:
    """Change an attribute of the text encoder for the call."""
    layers = pipe.text_encoder.encoder.block
    before = [block.layer[1].layer_norm.variance_epsilon for block in layers]
    for block in layers:
        block.layer[1].layer_norm.variance_epsilon += odd
    try:
        return generate(pipe, request)
    finally:
        for block, epsilon in zip(layers, before, strict=True):
            block.layer[1].layer_norm.variance_epsilon = epsilon


def careless(pipe: Any, request: Request) -> Any:
    """Leave the process as no other row could work in it."""
    os.umask(0o777)
    os.chdir("/")
    vars(builtins)["open"] = None
    return generate(pipe, request)


def plain(pipe: Any, request: Request) -> Any:
    return generate(pipe, request)


def declared(pipe: Any, request: Request) -> Any:
    return generate(pipe, request)


def _renderer(*functions: Callable[..., Any], model: Model | None = None, **given: Any) -> Renderer:
    recipes = {
        one.__name__: Recipe(name=one.__name__, function=one, digest="", is_batched=one is declared)
        for one in functions
    }
    model = model or load_model(tiny("wan"), dtype="fp32")
    return Renderer(model, Batching(min_gain=0), recipes=recipes, **given)


def _rows(recipe: str, num: int = 4) -> list[Request]:
    arguments = SMALLEST["wan"] | {"max_sequence_length": 16, "prompt": "ball"}
    return [Request(arguments=arguments, seed=seed, recipe=recipe) for seed in range(num)]


def test_the_process_is_as_before_once_a_row_has_ended() -> None:
    before = (os.getcwd(), os.umask(0o027), open)
    clips_in_order(_renderer(careless), _rows("careless", 2))
    assert (os.getcwd(), os.umask(before[1]), open) == (before[0], 0o027, before[2])


def threaded(pipe: Any, request: Request) -> Any:
    """Take more threads, and keep them."""
    torch.set_num_threads(3 if request.seed == 1 else torch.get_num_threads())
    return generate(pipe, request)


@pytest.mark.parametrize("is_batched", [True, False])
def test_forwards_have_the_threads_that_records_say_whatever_was_set_since(is_batched: bool) -> None:
    model, seen = load_model(tiny("wan"), dtype="fp32", threads=1), []
    load_model(tiny("wan"), dtype="fp32", threads=2)
    layer = model.pipe.transformer.patch_embedding
    layer.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    recipe = Recipe(name="threaded", function=threaded, digest="", is_batched=is_batched)
    renderer = Renderer(model, Batching(min_gain=0), recipes={"threaded": recipe}, audit=Audit(every=0))
    try:
        clips = clips_in_order(renderer, _rows("threaded"))
    finally:
        torch.set_num_threads(1)
    assert {*seen} == {1} == {clip.environment["threads"] for clip in clips}


@pytest.mark.parametrize(("recipe", "num_calls"), [(declared, 2), (plain, 8)])
def test_each_text_is_encoded_once_only_for_a_recipe_that_is_declared(
    recipe: Callable[..., Any], num_calls: int
) -> None:
    model, calls = load_model(tiny("wan"), dtype="fp32"), []
    model.pipe.text_encoder.encoder.register_forward_hook(lambda *_: calls.append(1))
    renderer = _renderer(recipe, model=model, audit=Audit(every=0))
    clips = clips_in_order(renderer, _rows(recipe.__name__))
    assert len(calls) == num_calls  # the prompt, and the negative one
    assert all((clip.batch_size == 1) == (recipe is plain) for clip in clips)


def test_an_encoder_that_a_recipe_changes_for_its_call_is_another_one() -> None:
    renderer, pipe = _renderer(sharper), load_model(tiny("wan"), dtype="fp32").pipe
    odds = (0.0, 1e6, 0.0, 1e6)
    rows = _rows("sharper")
    given = [
        replace(row, arguments={**row.arguments, "odd": odd}) for row, odd in zip(rows, odds, strict=True)
    ]
    for row, odd, clip in zip(rows, odds, clips_in_order(renderer, given), strict=True):
        with torch.no_grad():
            alone = to_frames(sharper(pipe, row, odd=odd))
        assert np.array_equal(clip.frames, alone)


@pytest.mark.parametrize("order", [("generate", "plain"), ("plain", "generate"), ("plain", "sharper")])
def test_a_renderer_refuses_rows_of_a_second_set_of_recipes(order: tuple[str, str]) -> None:
    renderer = _renderer(plain, sharper)
    first, second = (_rows(name, 1) for name in order)
    assert len(clips_in_order(renderer, first)) == 1
    with pytest.raises(RecipeError, match="renders none of") as caught:
        list(renderer.render(second, progress=False))
    assert "process of its own" in caught.value.fix
    assert len(clips_in_order(renderer, first)) == 1


def test_another_renderer_warns_that_its_process_has_run_a_users_recipe() -> None:
    clips_in_order(_renderer(plain), _rows("plain", 1))
    with pytest.warns(
        UserWarning, match="framefleet's own recipes are rendered in a process that has run .*plain"
    ):
        clips_in_order(_renderer(), _rows("generate", 1))


def test_an_audit_in_the_same_process_does_not_speak_for_a_users_recipe() -> None:
    for recipe, remark in (("generate", EQUAL), ("plain", NOT_COMPARED), ("declared", EQUAL_HERE)):
        (clip,) = clips_in_order(_renderer(plain, declared, audit=Audit(every=1)), _rows(recipe, 1))
        assert clip.environment["audit"].startswith(remark)


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
