"""Jobs with rows that are wrong when batched, rendered by real workers: what audits find and what is left."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from framefleet import Audit, Request, Summary, load_model
from framefleet.pipeline.metrics import AUDITS, ROW_OUTCOMES
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.recipes.catalog import BUILT_IN, generate
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.render.audit.auditor import PlainCalls
from framefleet.pipeline.render.audit.verdict import DIFFERED, EQUAL, apart
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.rows.identity import LaneKey
from tests import hidden_state
from tests.driven import WorkersHere, render_driven
from tests.jobs import job_values, records_of, write_table
from tests.tiny import SMALLEST, tiny
from tools.benchmarks.audits_simulated import simulate

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


def test_rows_that_a_certain_partner_makes_wrong_are_all_found_after_equal_audits(tmp_path: Path) -> None:
    prompts = ["a witch" if n in (40, 48, 56, 64) else f"ball {n}" for n in range(72)]
    summary, records = _render(tmp_path, "bewitched", prompts, every=4)
    remarks = _remarks(records)
    assert remarks.count(EQUAL) >= 5, "audits were equal, before one was not"
    assert len(summary.apart) == 1 and ROW_OUTCOMES.of(summary.figures, "withdrawn") > 0
    assert set(remarks) == {EQUAL, apart(DIFFERED)}
    assert _wrong(records, prompts) == []


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
