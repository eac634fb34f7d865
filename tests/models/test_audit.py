"""Rows are rendered again by plain calls: what copies of a pipeline miss is noticed, and put right."""

from __future__ import annotations

import copy
import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel

from framefleet import Audit, Batching, Clip, Model, Renderer, Request, Summary, load_model
from framefleet.pipeline.metrics import AUDITS
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.recipes.catalog import BUILT_IN, generate
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.render.audit.auditor import PlainCalls
from framefleet.pipeline.render.audit.verdict import DIFFERED, EQUAL, NOT_COMPARED, PLAINLY, Verdict, apart
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.rows.identity import LaneKey
from tests import hidden_state
from tests.driven import WorkersHere, render_driven
from tests.jobs import job_values, records_of, write_table
from tests.tiny import SMALLEST, tiny
from tests.unaudited import all_outcomes, clips_in_order, loaded
from tools.benchmarks.audits_simulated import simulate

RECIPES: dict[str, Callable[..., Any]] = {
    "remembers": hidden_state.remembers,
    "wanders": hidden_state.wanders,
}


def _renderer(model: Model, every: int) -> Renderer:
    known = {name: Recipe(name=name, function=function, digest="") for name, function in RECIPES.items()}
    return Renderer(model, Batching(max_rows=3, min_gain=0), recipes=known, audit=Audit(every=every))


def _requests(recipe: str, steps: list[int]) -> list[Request]:
    sizes = SMALLEST["wan"] | {"max_sequence_length": 16, "prompt": "a ball"}
    return [
        Request(arguments=sizes | {"num_inference_steps": count}, seed=seed, recipe=recipe)
        for seed, count in enumerate(steps)
    ]


def _stepped(renderer: Renderer, rows: list[Request], audited: tuple[int, ...] = ()) -> list[Clip]:
    """Submit rows, of which those of these seeds are audited; return the clips of all."""
    for row in rows:
        renderer.submit(row, f"{row.seed:032x}", is_audited=row.seed in audited)
    clips = all_outcomes(renderer)
    assert all(isinstance(clip, Clip) for clip in clips)
    return clips  # type: ignore[return-value]


def _is_plain(clip: Clip, row: Request) -> bool:
    plain = to_frames(RECIPES[row.recipe](copy.copy(loaded("wan").pipe), row))
    return np.array_equal(clip.frames, plain)


def _verdicts(renderer: Renderer) -> list[Verdict]:
    return [audited.verdict for audited in renderer.take_audits()]


def test_rows_that_a_hidden_state_makes_differ_in_company_become_plain_calls(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows, unaudited = _requests("remembers", [4, 3, 4, 5, 4]), _renderer(loaded("wan"), every=0)
    assert not all(map(_is_plain, clips_in_order(unaudited, rows[:4]), rows))
    renderer = _renderer(loaded("wan"), every=1000)
    with caplog.at_level(logging.WARNING, "framefleet"):
        clips = clips_in_order(renderer, rows)
    assert all(_is_plain(clips[row.seed], row) for row in rows)
    assert _verdicts(renderer) == ["differs"]
    assert not any(clip.was_batched for clip in clips)
    assert all(clip.environment["audit"].startswith(PLAINLY) for clip in clips)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(
        "rows of remembers 5 x 16 x 16, 16 tokens differ if they are not rendered by plain calls, as row "
    )


def test_a_pipeline_that_does_not_repeat_its_plain_calls_is_named_as_such() -> None:
    renderer, rows = _renderer(loaded("wan"), every=1000), _requests("wanders", [2, 3, 2, 3])
    clips = clips_in_order(renderer, rows)
    assert _verdicts(renderer) == ["unrepeatable"]
    assert all(clip.was_batched for clip in clips)
    assert {clip.environment["audit"] for clip in clips} == {"two plain calls of such a row differed"}


def test_rows_that_somebody_else_chose_are_audited_and_no_others() -> None:
    renderer = _renderer(loaded("wan"), every=1)
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
    clips = clips_in_order(renderer, rows)
    assert "differs" in _verdicts(renderer)
    for row in rows[1:]:
        vars(model.pipe.transformer).pop("first", None)
        plain = to_frames(model.pipe(**row.arguments, generator=row.generator(), output_type="np"))
        assert np.array_equal(clips[row.seed].frames, plain)


def test_an_audit_leaves_the_process_and_rows_under_way_as_they_were() -> None:
    rows, states, frames = _requests("generate", [2, 3, 4]), [], []
    for every in (1, 0):
        torch.manual_seed(5)
        renderer = _renderer(loaded("wan"), every=every)
        clips = clips_in_order(renderer, rows)
        states.append(torch.get_rng_state())
        frames.append([clips[row.seed].frames_sha256 for row in rows])
        assert _verdicts(renderer) == ["equal"] * 3 * every
        assert {clip.environment.get("audit") for clip in clips} == {EQUAL if every else None}
    assert torch.equal(*states) and frames[0] == frames[1]


STEPS = 2  # the fewest in which rows take turns
SIZES = SMALLEST["wan"] | {"max_sequence_length": 16, "num_inference_steps": STEPS}


def _render(
    folder: Path, recipe: str, prompts: list[str], **audit: Any
) -> tuple[Summary, list[dict[str, Any]]]:
    """Render a row of each prompt; return the records in the order of the table.

    The recipe passes for one of framefleet's own, whose audits are made where its rows are batched.
    """
    rows = [{"prompt": prompt, "seed": seed} for seed, prompt in enumerate(prompts)]
    table = write_table(folder / "t.parquet", rows)
    values = job_values(table, folder / "out", recipe=recipe, defaults=SIZES, audit=audit)
    own = Recipe(name=recipe, function=getattr(hidden_state, recipe))
    with mock.patch.dict(BUILT_IN, {recipe: own}):
        summary = render_driven(values)
    return summary, sorted(records_of(folder / "out"), key=lambda record: record["row_indices"])


def _wrong(records: list[dict[str, Any]], prompts: list[str]) -> list[int]:
    """Return the rows whose frames are not those of a plain call without the recipe's state."""
    pipe = load_model(tiny("wan"), dtype="fp32").pipe
    plain = [Request(arguments=SIZES | {"prompt": prompt}, seed=seed) for seed, prompt in enumerate(prompts)]
    digests = [frames_sha256(to_frames(generate(pipe, request))) for request in plain]
    return [n for n, record in enumerate(records) if record["frames_sha256"] != digests[n]]


def _remarks(records: list[dict[str, Any]]) -> list[str]:
    return [json.loads(record["environment"])["audit"] for record in records]


@pytest.mark.parametrize(("nth", "every"), [(2, 16), (20, 16), pytest.param(20, 4, marks=pytest.mark.long)])
def test_real_jobs_end_as_simulated_ones(nth: int, every: int, tmp_path: Path) -> None:
    prompts = [f"ball {n}{'!' * (n % nth == nth // 2)}" for n in range(48)]
    summary, records = _render(tmp_path, "unlucky", prompts, every=every)
    wrong = {n for n, prompt in enumerate(prompts) if prompt.endswith("!")}
    row_ids = [record["row_id"] for record in records]
    simulated = simulate([len(prompts)], wrong, Audit(every=every), row_ids=row_ids)
    left, remarks = _wrong(records, prompts), Counter(_remarks(records))
    assert bool(summary.apart) == simulated.is_noticed
    assert len(left) == simulated.num_left, "all of them, or none"
    assert summary.audits is not None and len(left) <= summary.audits.most_wrong
    # Rows that are under way when one is found wrong may be audited too, or not any more.
    assert abs(AUDITS.total(summary.figures) - simulated.num_audits) <= 8 * simulated.is_noticed
    if simulated.is_noticed:  # by more than one audit, where two were under way
        assert remarks[EQUAL] < AUDITS.total(summary.figures)
    else:
        assert remarks[EQUAL] == AUDITS.total(summary.figures)
    assert (remarks[apart(DIFFERED)] > 0) == simulated.is_noticed


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_job_of_26_rows_renders_at_most_one_row_a_second_time(num_workers: int, tmp_path: Path) -> None:
    rows = [{"prompt": f"ball {n}", "seed": n, "width": 16 + 16 * (n % 4 == 0)} for n in range(26)]
    table = write_table(tmp_path / "t.parquet", rows)
    sizes = {name: value for name, value in SIZES.items() if name != "width"}
    plain, plain_call = [], PlainCalls.__call__

    def counted(calls: PlainCalls, row: RenderRow) -> Any:
        plain.append(row.row_id)
        return plain_call(calls, row)

    with mock.patch.object(PlainCalls, "__call__", counted):
        summary = render_driven(
            job_values(table, tmp_path / "out", defaults=sizes, batching={"min_gain": 0}),
            num_workers=num_workers,
        )
    assert (summary.done, len(plain), AUDITS.total(summary.figures)) == (26, 1, 1)
    records = records_of(tmp_path / "out")
    (compared,) = [one for one in records if json.loads(one["environment"])["audit"] == EQUAL]
    assert compared["row_id"] == plain[0]
    assert compared["width"] == 16, "of the kind with the most rows"
    assert summary.audits is not None
    assert sorted(summary.audits.kinds.values()) == [False, True]


def raises(pipe: Any, request: Request) -> Any:
    """Raise by prompt, maybe for what an earlier row of the process has left: it is not declared."""
    if "raises" in request.arguments["prompt"]:
        raise ValueError("this row raises")
    return generate(pipe, request)


def test_a_row_is_tried_in_a_new_process_though_another_worker_has_no_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"a ball that {how}", "seed": 0} for how in ("rolls", "raises")]
    table = write_table(tmp_path / "t.parquet", rows)
    recipe, serving = f"{__name__}:raises", WorkersHere.num_serving
    pending = Counter([LaneKey("", recipe)])
    monkeypatch.setattr(WorkersHere, "num_by_lane", lambda workers: serving(workers) + pending)
    lanes: list[LaneKey] = []
    values = job_values(table, tmp_path / "out", recipe=recipe, defaults=SIZES)
    summary = render_driven(values, lanes=lanes)
    assert (summary.done, summary.failed, len(lanes)) == (1, 1, 2)
