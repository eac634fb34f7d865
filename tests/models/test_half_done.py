"""Rows are taken off a renderer at random steps and go on in another, with bits of the undisturbed run."""

from __future__ import annotations

import copy
import functools
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import torch
from diffusers import WanPipeline

from framefleet import Audit, Batching, Clip, HalfDone, Model, Renderer, Request, load_model
from framefleet.pipeline.outputs.clips import Outcome
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.render.audit.verdict import kind_of
from framefleet.pipeline.render.checkpoints.checkpoint import RowCheckpoint, checkpoint_bytes, read_checkpoint
from tests import hidden_state
from tests.media_files import sha256
from tests.pictures import write_starts
from tests.tiny import INPUTS, SMALLEST, tiny
from tests.unaudited import all_outcomes, calls_of, loaded

ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "a red ball", "num_inference_steps": 5},
    {"prompt": "海", "num_inference_steps": 4},
    {"prompt": 'a sign that says "hello"', "num_inference_steps": 6},
)
Rows = Mapping[str, Request]
Digests = dict[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Rows of one model. per_step: forwards of a step; steps: of the renderer, while rows are under way."""

    model: str = "wan"
    given: Mapping[str, Any] = field(default_factory=dict)
    scheduler: str | None = None
    recipe: str = "generate"
    per_step: int = 2
    steps: int = 9

    def rows(self) -> Rows:
        return {
            f"{seed:032x}": Request(
                arguments={**SMALLEST[self.model], **_files(self.model), **(given | self.given)},
                seed=seed,
                scheduler=self.scheduler,
                recipe=self.recipe,
            )
            for seed, given in enumerate(ROWS)
        }


@functools.cache
def _files(name: str) -> dict[str, Any]:
    """Return the pictures and clips that rows of a model start from, as a job writes them into requests."""
    folder, found = tiny(name).with_name(f"{name}-starts"), {}
    folder.mkdir(exist_ok=True)
    for argument, num_frames in INPUTS.get(name, {}).items():
        path = folder / write_starts(folder, num_frames=num_frames)[0]
        found[argument] = {"uri": str(path), "sha256": sha256(path.read_bytes())}
        if num_frames > 1:
            found[argument] |= {"num_frames": num_frames}
    return found


CASES = {
    "Wan": Case(),
    "CogVideoX": Case(model="cogvideox", scheduler="cogvideox_dpm", per_step=1, steps=5),
    "Stable Diffusion": Case(model="sd", given={"eta": 0.5}, scheduler="ddim", per_step=1, steps=5),
    # Its first step has one time for frames and sound, the others two: calls of two shapes, each made again.
    "MiniMax-H3": Case(model="minimax_h3", per_step=2, steps=5),
    # One forward of a segment fills a cache of keys and values, and is made again; the others read it.
    "Wan-Animate 2": Case(model="wan_animate_2", per_step=3, steps=5),
    # It has no noise scheduler, and draws new noise after each step.
    "Echo": Case(model="echo", given={"sigmas": [1.0, 0.9, 0.7, 0.5, 0.2, 0.0]}, per_step=1, steps=5),
    "two calls": Case(given={"height": 32, "width": 32, "strength": 0.7}, recipe="refine", steps=14),
}


EXACT = Batching(max_rows=3, min_gain=0)


def _renderer(model: Model, max_rows: int = 3, every: int = 0, **recipes: Callable[..., Any]) -> Renderer:
    known = {name: Recipe(name=name, function=function, digest="") for name, function in recipes.items()}
    batching = replace(EXACT, max_rows=max_rows)
    return Renderer(model, batching, audit=Audit(every=every), recipes=known or None)


def _digests(outcomes: Iterable[Outcome | HalfDone]) -> Digests:
    clips: Digests = {}
    for clip in outcomes:
        assert isinstance(clip, Clip), clip
        clips[clip.row_id] = clip.frames_sha256
    return clips


def _ended(renderer: Renderer, rows: Iterable[tuple[str, Request, bytes | None]]) -> list[Outcome]:
    for row_id, request, checkpoint in rows:
        renderer.submit(request, row_id, checkpoint)
    return all_outcomes(renderer)


def _undisturbed(renderer: Renderer, rows: Rows) -> Digests:
    return _digests(_ended(renderer, ((row_id, request, None) for row_id, request in rows.items())))


def _taken_off(renderer: Renderer, rows: Rows, num_steps: int) -> tuple[Digests, list[HalfDone]]:
    """Return the clips of rows in company after so many steps, and the rows that are half done."""
    for row_id, request in rows.items():
        renderer.submit(request, row_id)
    ended: list[Outcome | HalfDone] = []
    for _ in range(num_steps):
        ended += renderer.step()
    ended += renderer.drain()
    assert len(ended) == len(rows) and not renderer.num_active
    halves = [half for half in ended if isinstance(half, HalfDone)]
    return _digests(clip for clip in ended if not isinstance(clip, HalfDone)), halves


def _gone_on(renderer: Renderer, halves: Iterable[HalfDone]) -> list[Outcome]:
    return _ended(renderer, [(half.row_id, half.request, half.checkpoint) for half in halves])


def _state(half: HalfDone) -> RowCheckpoint:
    assert half.checkpoint is not None
    return read_checkpoint(half.checkpoint)


@pytest.mark.parametrize("name", CASES)
def test_rows_go_on_from_random_steps_with_equal_bits_and_repeat_one_step_at_most(name: str) -> None:
    case = CASES[name]
    model, rows = loaded(case.model), case.rows()

    with calls_of(model.denoisers()) as forwards:
        clips = _undisturbed(_renderer(model, 1), rows)
    num_forwards = len(forwards)
    for num_steps in random.Random(name).sample(range(1, case.steps), 2):
        found, halves = _taken_off(_renderer(model), rows, num_steps)
        made = sum(len(_state(half).made) for half in halves)
        assert halves and made
        with calls_of(model.denoisers()) as forwards:
            found |= _digests(_gone_on(_renderer(model, 1), halves))
        assert found == clips
        if len(halves) == len(rows):
            assert num_forwards <= made + len(forwards) <= num_forwards + case.per_step * len(halves)


@functools.cache
def _of_wan() -> Digests:
    return _undisturbed(_renderer(loaded("wan"), 1), CASES["Wan"].rows())


def test_rows_that_are_saved_go_on_here_and_elsewhere() -> None:
    rows, renderer, saved, found = CASES["Wan"].rows(), _renderer(loaded("wan")), {}, []
    assert renderer.save() == []
    for row_id, request in rows.items():
        renderer.submit(request, row_id)
    while renderer.num_active:
        found += renderer.step()
        saved |= {half.row_id: half for half in renderer.save()}
    assert _digests(found) == _of_wan()
    assert saved.keys() == rows.keys()
    assert _digests(_gone_on(_renderer(loaded("wan")), saved.values())) == _of_wan()


def test_a_row_may_be_taken_off_again_and_again_and_its_record_counts_all() -> None:
    rows = dict([*CASES["Wan"].rows().items()][:1])
    began = datetime.now(UTC)
    (row,) = _taken_off(_renderer(loaded("wan")), rows, 2)[1]
    seconds, num_made = [0.0], [0]
    for num_steps in (0, 3, 2, 4):  # at first it waits; of the others the first makes a forward again
        seconds.append(_state(row).seconds["denoise_s"])
        num_made.append(len(_state(row).made))
        renderer = _renderer(loaded("wan"))
        renderer.submit(row.request, row.row_id, row.checkpoint)
        for _ in range(num_steps):
            renderer.step()
        waited, (row,) = row, renderer.drain()  # type: ignore[assignment]
        assert num_steps or waited.checkpoint == row.checkpoint
    assert num_made == [0, 2, 2, 4, 5]
    (clip,) = _gone_on(_renderer(loaded("wan")), [row])
    assert isinstance(clip, Clip) and clip.frames_sha256 == _of_wan()[clip.row_id]
    assert seconds == sorted(seconds) and seconds[-1] < clip.seconds["denoise_s"]
    assert began <= clip.started_at <= began + timedelta(minutes=10)
    took_s = (datetime.now(UTC) - began).total_seconds()
    assert 0 < clip.seconds["compute_s"] < took_s
    assert sum(clip.seconds.values()) - clip.seconds["compute_s"] < took_s
    assert (clip.batch_size, clip.was_batched) == (1, True)


class Remembering(WanPipeline):
    """Goes by a variable of its call that no object holds, and that two steps change."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        seen: list[torch.Tensor] = []

        def on_step_end(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
            seen.append(given["latents"].mean())
            return {"latents": given["latents"] + 0.2 * sum(seen[-3:-1])}

        return super().__call__(*arguments, **named, callback_on_step_end=on_step_end)


def test_variables_of_a_pipelines_call_are_what_they_were() -> None:
    pipe = copy.copy(loaded("wan").pipe)
    pipe.__class__ = Remembering
    model, rows = replace(loaded("wan"), pipe=pipe), CASES["Wan"].rows()
    clips = _undisturbed(_renderer(model, 1), rows)
    assert clips != _of_wan()
    found, halves = _taken_off(_renderer(model), rows, 7)
    assert found | _digests(_gone_on(_renderer(model), halves)) == clips


def test_rows_of_fast_batching_go_on_and_audits_speak_for_rows_that_were_batched_elsewhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = CASES["Wan"].rows()
    for batching, verdicts in ((Batching(mode="fast", min_gain=0), []), (EXACT, ["equal"] * 3)):
        found, halves = _taken_off(Renderer(loaded("wan"), batching, audit=Audit(every=1)), rows, 7)
        assert all(half.checkpoint for half in halves)
        second = Renderer(loaded("wan"), replace(batching, max_rows=1), audit=Audit(every=1))
        assert (found | _digests(_gone_on(second, halves))).keys() == rows.keys()
        assert [audited.verdict for audited in second.take_audits()] == verdicts
    assert not caplog.records


def test_what_audits_would_look_at_is_not_given_out_as_a_renderer_ends() -> None:
    rows = CASES["Wan"].rows()
    for num_steps in (8, 9):
        found, halves = _taken_off(_renderer(loaded("wan"), every=1000), rows, num_steps)
        assert len(found) + len(halves) == 3
        renderer = _renderer(loaded("wan"), every=1000)
        assert len(_gone_on(renderer, halves)) == len(halves)
        assert len(renderer.take_audits()) == bool(halves)


def test_rows_of_a_network_that_keeps_state_begin_again_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, rows = load_model(tiny("wan"), dtype="fp32"), CASES["Wan"].rows()
    model.pipe.transformer.__class__ = hidden_state.Accumulating
    clips = _undisturbed(_renderer(model), rows)
    assert "mean" not in vars(model.pipe.transformer), "as in a network that was just loaded"
    renderer = _renderer(model)
    with caplog.at_level(logging.WARNING, "framefleet"):
        found, halves = _taken_off(renderer, rows, 6)
        _taken_off(renderer, rows, 6)
    assert [half.checkpoint for half in halves] == [None] * 3
    assert found | _digests(_gone_on(_renderer(model), halves)) == clips
    (message,) = [record.getMessage() for record in caplog.records if "start over" in record.getMessage()]
    assert message.startswith("rows of WanPipeline that are in progress start over on other workers: ")
    assert message.endswith("transformer.mean changes while a row renders")


def test_a_checkpoint_that_anybody_changed_costs_time_and_no_bit(caplog: pytest.LogCaptureFixture) -> None:
    rows = dict([*CASES["Wan"].rows().items()][1:2])
    (half,) = _taken_off(_renderer(loaded("wan")), rows, 6)[1]
    known, renderer = _state(half), _renderer(loaded("wan"), 1)
    *first, last = known.made
    wide, other = last._replace(tensors=(torch.zeros(1, 16, 64, 64, 64),)), last._replace(module="vae")
    changed = last._replace(tensors=(last.tensors[0] + 1,))
    more = [last._replace(tensors=(last.tensors[0].clone(),)) for _ in range(9)]
    for changes, reason in (
        ({"row_id": "0" * 32}, "it belongs to another row"),
        ({"model": "0" * 64}, "saved with another model"),
        ({"build": "0" * 64}, "by another build"),
        ({"surroundings": "0"}, "with another machine"),
        ({"made": [*first, wide]}, "not return"),
        ({"made": [*first, other]}, "not vae"),
        ({"made": [*first, changed]}, "a different state"),
        ({"made": [*known.made, *more]}, "it "),
        ({}, "it is not a checkpoint"),
    ):
        content = checkpoint_bytes(replace(known, **changes)) if changes else b""
        caplog.clear()
        with caplog.at_level(logging.WARNING, "framefleet"):
            (clip,) = _ended(renderer, [(half.row_id, half.request, content)])
        assert _digests([clip]) == {half.row_id: _of_wan()[half.row_id]}
        (record,) = caplog.records
        assert f"row {half.row_id} starts over" in record.getMessage() and reason in record.getMessage()


def test_rows_of_a_kind_that_was_set_apart_do_not_go_on_from_what_company_made() -> None:
    case = replace(CASES["Wan"], recipe="remembers")
    rows = case.rows()
    _, halves = _taken_off(_renderer(loaded("wan"), remembers=hidden_state.remembers), rows, 7)
    renderer = _renderer(loaded("wan"), remembers=hidden_state.remembers)
    renderer.set_apart(kind_of(next(iter(rows.values()))))
    alone = _renderer(loaded("wan"), 1, remembers=hidden_state.remembers)
    assert _digests(_gone_on(renderer, halves)) == _undisturbed(alone, rows)
