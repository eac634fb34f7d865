"""What a pipeline keeps or draws is the row's: rows in company equal plain calls, each on a fresh one."""

from __future__ import annotations

import copy
import functools
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline

from framefleet import Model, Request, load_model
from framefleet.pipeline.outputs.frames.frames import Frames, to_frames
from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.recipes.second_model import SecondModels, check_second_model, open_second_models
from framefleet.plugins.recipes.siblings import as_sibling
from tests.hidden_state import Accumulating
from tests.random_weights import flow_scheduler
from tests.tiny import SMALLEST, tiny
from tests.unaudited import clips_in_order, unaudited

IMAGE = {"height": 16, "width": 16}
PROMPTS = ("a red ball", "海", 'a sign that says "hello"', "a dog runs")
STEPS = (2, 3, 2, 2)
SEEDS = (0, 1, 2**40 + 7, 3)


class Remembering(WanPipeline):
    """Guides by a momentum, steps by a second scheduler, and counts its calls."""

    momentum: dict[str, torch.Tensor]
    audio_scheduler: UniPCMultistepScheduler
    calls: list[str]

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls.append(named["prompt"])
        self.audio_scheduler.set_timesteps(named["num_inference_steps"] + len(self.calls))
        return super().__call__(*arguments, **named, callback_on_step_end=_remember)


def _remember(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
    pipe.momentum["sum"] = 0.5 * pipe.momentum["sum"] + given["latents"].mean()
    latents = given["latents"] + 0.2 * pipe.momentum["sum"]
    second = pipe.audio_scheduler
    return {"latents": second.step(0.1 * latents, second.timesteps[step], latents, return_dict=False)[0]}


class Drawing(WanPipeline):
    """Draws from the global generators between its steps: an odd number, so that halves of pairs wait."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return super().__call__(*arguments, **named, callback_on_step_end=_draw)


def _draw(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
    latents = given["latents"]
    number = np.random.standard_normal() + random.gauss(0.0, 1.0)
    return {"latents": latents + 0.2 * torch.randn_like(latents) + 0.2 * number}


@functools.cache
def _model(name: str) -> Model:
    model = load_model(tiny(name), dtype="fp32")
    model.pipe.tokenizer_max_length = 32  # HunyuanImage's thousand tokens take most of the time
    return model


def _of(made: type[WanPipeline], **kept: Any) -> Model:
    pipe = copy.copy(_model("wan").pipe)
    pipe.__class__ = made
    for name, value in kept.items():
        setattr(pipe, name, value)
    return replace(_model("wan"), pipe=pipe)


def _requests(sizes: dict[str, Any], **given: Any) -> list[Request]:
    rows = zip(PROMPTS, STEPS, SEEDS, strict=True)
    return [
        Request(arguments=sizes | {"prompt": prompt, "num_inference_steps": steps}, seed=seed, **given)
        for prompt, steps, seed in rows
    ]


def _rendered(model: Model, rows: list[Request], **recipes: Callable[..., Any]) -> list[Frames]:
    known = {name: Recipe(name=name, function=function, digest="") for name, function in recipes.items()}
    clips = clips_in_order(unaudited(model, recipes=known), rows)
    assert max(clip.batch_size for clip in clips) > 1
    return [clip.frames for clip in clips]


def _plain(pipe: Any, row: Request) -> Frames:
    """Call a pipeline as a script does that has just loaded it, and seeded the generators."""
    pipe = copy.copy(pipe)
    shared = ("_internal_dict", "tokenizer", "tokenizer_2")
    for name, part in vars(pipe).items():
        if not isinstance(part, torch.nn.Module) and name not in shared:
            object.__setattr__(pipe, name, copy.deepcopy(part))
    torch.manual_seed(row.seed)
    np.random.seed(row.seed % 2**32)
    random.seed(row.seed)
    return to_frames(pipe(**row.arguments, generator=row.generator(), output_type="np"))


def _are_plain(model: Model, rows: list[Request], clips: list[Frames]) -> list[bool]:
    return [np.array_equal(clip, _plain(model.pipe, row)) for row, clip in zip(rows, clips, strict=True)]


def test_rows_of_a_pipeline_with_guiders_equal_plain_calls() -> None:
    model, rows = _model("hunyuan_image"), _requests(IMAGE)
    clips = _rendered(model, rows)
    assert all(_are_plain(model, rows, clips))
    assert len({clip.tobytes() for clip in clips}) == len(rows)
    assert model.pipe.guider.momentum_buffer is None


def test_rows_of_a_pipeline_with_notes_and_a_second_scheduler_equal_plain_calls() -> None:
    model = _of(Remembering, momentum={"sum": torch.zeros(())}, audio_scheduler=flow_scheduler(), calls=[])
    rows = _requests(SMALLEST["wan"])
    assert all(_are_plain(model, rows, _rendered(model, rows)))
    assert model.pipe.calls == []


def test_a_pipeline_over_a_rows_components_has_the_rows_own_guiders() -> None:
    def over(pipe: Any, request: Request) -> Any:
        other = type(pipe)(**pipe.components)
        other.tokenizer_max_length = pipe.tokenizer_max_length
        return generate(other, request)

    model, rows = _model("hunyuan_image"), _requests(IMAGE, recipe="over")[1:3]
    assert all(_are_plain(model, rows, _rendered(model, rows, over=over)))


def test_a_sibling_has_the_rows_own_components() -> None:
    def sibling(pipe: Any, request: Request) -> Any:
        made = as_sibling(pipe, "WanVideoToVideoPipeline")
        assert made.scheduler is pipe.scheduler
        assert made.scheduler is not model.pipe.scheduler
        assert made.transformer is model.pipe.transformer
        return generate(pipe, request)

    model = _model("wan")
    _rendered(model, _requests(SMALLEST["wan"], recipe="sibling"), sibling=sibling)


def test_each_row_gets_a_second_model_with_state_of_its_own() -> None:
    declared = open_second_models({"flux": {"path": str(tiny("flux")), "dtype": "fp32"}})
    named = {"image_model": check_second_model("image_model", "flux", declared)}
    models = SecondModels(declared, main=load_model(tiny("wan"), dtype="fp32"))
    first, second = (models.opened(named)["image_model"].pipe for _ in range(2))
    assert first.transformer is second.transformer
    assert first.scheduler is not second.scheduler


def test_a_network_that_keeps_state_renders_its_rows_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    model, rows = load_model(tiny("wan"), dtype="fp32"), _requests(SMALLEST["wan"])
    transformer = model.pipe.transformer
    transformer.__class__ = Accumulating
    with caplog.at_level(logging.WARNING, "framefleet"):
        clips = clips_in_order(unaudited(model), rows)
    for row, clip in zip(rows, clips, strict=True):
        vars(transformer).pop("mean", None)  # as in a network that was just loaded
        assert np.array_equal(clip.frames, _plain(model.pipe, row))
    assert [record.getMessage() for record in caplog.records] == [
        "transformer.mean of WanPipeline changes while a row renders, so these rows are rendered alone"
    ]


def test_rows_that_draw_from_global_generators_equal_plain_calls_that_seed_them() -> None:
    model, rows = _of(Drawing), _requests(SMALLEST["wan"])
    assert all(_are_plain(model, rows, _rendered(model, rows)))


def test_a_scheduler_that_no_generator_is_given_draws_the_rows_own_numbers() -> None:
    model = _model("sd3")
    rows = _requests(SMALLEST["sd3"], scheduler="flow_euler(stochastic_sampling=true)")
    drawing = copy.copy(model.pipe)
    kind, config = type(drawing.scheduler), drawing.scheduler.config
    drawing.scheduler = kind.from_config(config, stochastic_sampling=True)
    clips = _rendered(model, rows)
    assert all(_are_plain(replace(model, pipe=drawing), rows, clips))
    assert not all(_are_plain(model, rows, clips))  # without draws
