"""Rows are rendered again by plain calls: what copies of a pipeline miss is noticed, and put right."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel

from framefleet import Audit, Batching, Clip, Model, Renderer, Request, load_model
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.render.audit.verdict import EQUAL, NOT_COMPARED, PLAINLY, Verdict
from tests import hidden_state
from tests.tiny import SMALLEST, tiny

RECIPES: dict[str, Callable[..., Any]] = {
    "remembers": hidden_state.remembers,
    "wanders": hidden_state.wanders,
}


@functools.cache
def _model() -> Model:
    return load_model(tiny("wan"), dtype="fp32")


def _renderer(model: Model, every: int, mode: Any = "exact") -> Renderer:
    known = {name: Recipe(name=name, function=function, digest="") for name, function in RECIPES.items()}
    return Renderer(
        model, Batching(max_rows=3, min_gain=0, mode=mode), recipes=known, audit=Audit(every=every)
    )


def _requests(recipe: str, steps: list[int]) -> list[Request]:
    sizes = SMALLEST["wan"] | {"max_sequence_length": 16, "prompt": "a ball"}
    return [
        Request(arguments=sizes | {"num_inference_steps": count}, seed=seed, recipe=recipe)
        for seed, count in enumerate(steps)
    ]


def _clips(renderer: Renderer, rows: list[Request]) -> dict[int, Clip]:
    clips = {}
    for outcome in renderer.render(rows):
        assert isinstance(outcome, Clip), outcome.traceback
        clips[outcome.request.seed] = outcome
    return clips


def _stepped(renderer: Renderer, rows: list[Request], audited: tuple[int, ...] = ()) -> list[Clip]:
    """Submit rows, of which those of these seeds are audited; return the clips of all."""
    for row in rows:
        renderer.submit(row, f"{row.seed:032x}", is_audited=row.seed in audited)
    clips = []
    while renderer.num_active:
        clips += renderer.step()
    assert all(isinstance(clip, Clip) for clip in clips)
    return clips  # type: ignore[return-value]


def _is_plain(clip: Clip, row: Request) -> bool:
    plain = to_frames(RECIPES[row.recipe](copy.copy(_model().pipe), row))
    return np.array_equal(clip.frames, plain)


def _verdicts(renderer: Renderer) -> list[Verdict]:
    return [audited.verdict for audited in renderer.take_audits()]


def test_rows_that_a_hidden_state_makes_differ_in_company_become_plain_calls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows, unaudited = _requests("remembers", [4, 3, 4, 5, 4]), _renderer(_model(), every=0)
    assert not all(_is_plain(clip, rows[seed]) for seed, clip in _clips(unaudited, rows[:4]).items())
    renderer = _renderer(_model(), every=1000)
    with caplog.at_level(logging.WARNING, "framefleet"):
        clips = _clips(renderer, rows)
    assert all(_is_plain(clips[row.seed], row) for row in rows)
    assert _verdicts(renderer) == ["differs"]
    assert not any(clip.was_batched for clip in clips.values())
    assert all(clip.environment["audit"].startswith(PLAINLY) for clip in clips.values())
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(
        "rows of remembers 5 x 16 x 16, 16 tokens differ if they are not rendered by plain calls, as row "
    )


def test_a_pipeline_that_does_not_repeat_its_plain_calls_is_named_as_such() -> None:
    renderer, rows = _renderer(_model(), every=1000), _requests("wanders", [2, 3, 2, 3])
    clips = _clips(renderer, rows)
    assert _verdicts(renderer) == ["unrepeatable"]
    assert all(clip.was_batched for clip in clips.values())
    assert {clip.environment["audit"] for clip in clips.values()} == {
        "two plain calls of such a row differed"
    }


def test_rows_that_somebody_else_chose_are_audited_and_no_others() -> None:
    renderer = _renderer(_model(), every=1)
    remarks = {
        clip.row_id: clip.environment["audit"]
        for clip in _stepped(renderer, _requests("generate", [2] * 4), audited=(1, 3))
    }
    assert [audited.row_id for audited in renderer.take_audits()] == [f"{seed:032x}" for seed in (1, 3)]
    assert [remarks.pop(f"{seed:032x}") for seed in (1, 3)] == [EQUAL] * 2
    assert all(remark.startswith(NOT_COMPARED) for remark in remarks.values())


@pytest.mark.parametrize("cache", [None, {"type": "first_block"}])
def test_an_audit_is_made_between_rows_and_none_begins_again(cache: dict[str, Any] | None) -> None:
    model = load_model(tiny("wan"), dtype="fp32", **{"cache": cache} if cache else {})
    num_steps, calls = [2, 4, 4], []
    model.pipe.transformer.register_forward_pre_hook(lambda *call: calls.append(call))
    renderer = _renderer(model, every=1)
    clips = _stepped(renderer, _requests("generate", num_steps), audited=(0,))
    assert _verdicts(renderer) == ["equal"]
    if cache:
        assert len(calls) == 2 * (sum(num_steps) + num_steps[0]), "each row once, and one audit"
    charged_s = sum(clip.seconds["compute_s"] for clip in clips)
    assert charged_s == pytest.approx(renderer.clock.busy_s, rel=0.02)


def test_a_row_that_runs_alone_is_audited_too_as_it_is_no_plain_call() -> None:
    renderer = _renderer(_model(), every=1)
    (clip,) = _clips(renderer, _requests("generate", [2])).values()
    assert _verdicts(renderer) == ["equal"] and clip.environment["audit"] == EQUAL


class Latched(WanTransformer3DModel):
    """Goes by the first latents that it ever saw, as if each row had begun with these."""

    first: Any = None

    def forward(self, *arguments: Any, **named: Any) -> Any:
        if self.first is None:
            self.first = named["hidden_states"].detach().mean()
        (prediction,) = super().forward(*arguments, **named)
        return (prediction + self.first,)


def test_what_a_network_kept_from_an_earlier_row_is_found_on_a_pipeline_as_it_was_loaded() -> None:
    model = load_model(tiny("wan"), dtype="fp32")
    model.pipe.transformer.__class__ = Latched
    renderer, rows = _renderer(model, every=1), _requests("generate", [2, 2, 2])
    clips = _clips(renderer, rows)
    assert "differs" in _verdicts(renderer)
    for row in rows[1:]:
        vars(model.pipe.transformer).pop("first", None)
        plain = to_frames(model.pipe(**row.arguments, generator=row.generator(), output_type="np"))
        assert np.array_equal(clips[row.seed].frames, plain)


def test_an_audit_leaves_the_process_and_rows_under_way_as_they_were() -> None:
    rows, states, frames = _requests("generate", [2, 3, 4]), [], []
    for every in (1, 0):
        torch.manual_seed(5)
        renderer = _renderer(_model(), every=every)
        clips = _clips(renderer, rows)
        states.append(torch.get_rng_state())
        frames.append([clips[row.seed].frames_sha256 for row in rows])
        assert _verdicts(renderer) == ["equal"] * 3 * every
        assert {clip.environment.get("audit") for clip in clips.values()} == {EQUAL if every else None}
    assert torch.equal(*states) and frames[0] == frames[1]
