"""The second pass over the table: it must find the rows that the first pass checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from framefleet.cluster.dispatch.dispatcher import Dispatcher, LeaseSize
from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.dispatch.lease import Paces, Row
from framefleet.cluster.driver.feed import Feed, Pending, pending_rows
from framefleet.cluster.driver.lanes import order_of
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.render import work_of
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import survey_rows, write_invalid
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError, RecipeError, TableError
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.rows import RowPlan
from tests.jobs import job_values, prompt_rows, records_of, write_table

ROWS = prompt_rows(4)


def _resolved(folder: Path, **more: Any) -> ResolvedJob:
    return resolve_job(load_job(job_values(folder / "t.parquet", folder / "out") | more), Callback())


def _pending(folder: Path, changed: list[Mapping[str, Any]] | None = None) -> list[Row]:
    """The rows to render, when the table is `changed` after it was checked."""
    write_table(folder / "t.parquet", ROWS)
    resolved = _resolved(folder)
    with closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        if changed is not None:
            write_table(folder / "t.parquet", changed)
            resolved = _resolved(folder)
        return list(pending_rows(resolved.table, resolved.rows, index))


def test_what_is_borne_is_what_the_job_says_below_retries(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", ROWS)
    retries = {"attempts": 5, "worker_deaths": 7, "faults": 2}
    work = work_of(_resolved(tmp_path, retries=retries), RowIndex(), None, run="r1")  # type: ignore[arg-type]
    assert work.run.job.retries == FaultPolicy(**retries)


RANKED = [
    {**ROWS[0], "seed": 1, "num_inference_steps": 2, "urgent": 0.5},
    {**ROWS[0], "seed": 2, "num_inference_steps": 9, "urgent": None},
    {**ROWS[0], "seed": 3, "num_inference_steps": 4, "urgent": 7.0},
]


@pytest.mark.parametrize(
    ("order", "seeds"),
    [
        ("table", [1, 2, 3]),
        ("longest", [2, 3, 1]),
        ("priority:urgent", [3, 1, 2]),
        ("priority:num_inference_steps", [2, 3, 1]),
    ],
)
def test_rows_are_leased_in_the_order_that_the_job_says(order: str, seeds: list[int], tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", RANKED)
    resolved = _resolved(tmp_path, order=order)
    with closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        work = work_of(resolved, index, None, run="r1")  # type: ignore[arg-type]
        dispatcher = Dispatcher(size=LeaseSize(max_rows=1), order=order_of(order, Paces()))
        feed = Feed(
            work,
            dispatcher,
            {},
            lambda row_id, pending: False,
            lane=LaneKey(),
            table=work.run.table,
        )
        feed.fill()
        dispatcher.join("w")
        leases = [dispatcher.lease("w", 0.0)]
        while lease := leases[-1]:
            dispatcher.done("w", lease.rows[0].row.row_id, 0.0)
            leases.append(dispatcher.lease("w", 0.0))
        payloads = [lease.rows[0].row.payload for lease in leases if lease]
    assert [payload.request.seed for payload in payloads if isinstance(payload, Pending)] == seeds


def test_a_row_whose_priority_changes_is_the_same_row(tmp_path: Path) -> None:
    changed = [row | {"urgent": number} for number, row in enumerate(RANKED)]
    found = []
    for number, rows in enumerate((RANKED, changed)):
        (folder := tmp_path / f"{number}").mkdir()
        write_table(folder / "t.parquet", rows)
        with closing(RowIndex()) as index:
            survey_rows(_resolved(folder, order="priority:urgent"), index, Callback())
            found.append(index.row_ids_in(0, 3))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        ("priority:urgnt", "no column is called 'urgnt'\nhint: did you mean 'urgent'"),
        ("priority:prompt", "'prompt' holds string"),
        ("shortest", "`order` is 'shortest'\nhint: it must be table, longest or priority:COLUMN"),
    ],
)
def test_an_order_that_rows_cannot_be_put_in_is_refused(order: str, problem: str, tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", RANKED)
    with pytest.raises(JobError, match=problem):
        _resolved(tmp_path, order=order)


def test_every_checked_row_is_fed_once(tmp_path: Path) -> None:
    assert len({row.row_id for row in _pending(tmp_path)}) == len(ROWS)


@pytest.mark.parametrize(
    "changed", [[{**ROWS[0], "seed": 99}, *ROWS[1:]], ROWS[:2], [{**ROWS[0], "prompt": ""}, *ROWS[1:]]]
)
def test_a_table_changed_while_the_job_runs_is_refused(
    changed: list[Mapping[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(TableError, match="was changed while the job ran"):
        _pending(tmp_path, changed)


def test_rows_that_are_added_before_the_first_is_read_are_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path / "t.parquet", ROWS)
    resolved = _resolved(tmp_path)
    with closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        num_pending = index.num_pending(None)
        rows = pending_rows(resolved.table, resolved.rows, index, num_pending=num_pending)
        monkeypatch.setattr(index, "num_pending", lambda model=None: len(ROWS) + 2)
        assert len(list(rows)) == len(ROWS)


def test_a_row_that_waits_does_not_hold_what_was_read_of_others(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", [row | {"note": "x" * 10_000} for row in ROWS])
    resolved = _resolved(tmp_path)
    with closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        index.leave_only([row_id for _, row_id in index.pending_in(1, 1)])
        (row,) = pending_rows(resolved.table, resolved.rows, index)
    assert isinstance(row.payload, Pending)
    assert row.payload.carried.to_pylist() == [{"tag": ROWS[1]["tag"], "note": "x" * 10_000}]
    assert row.payload.carried.get_total_buffer_size() < 20_000


def test_rows_alike_are_not_checked_a_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = prompt_rows(4, num_inference_steps=2, guidance_scale=5.0)
    write_table(tmp_path / "t.parquet", alike)
    resolved = _resolved(tmp_path)
    with closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        monkeypatch.delattr(RowPlan, "row")
        fed = list(pending_rows(resolved.table, resolved.rows, index))
    payloads = [row.payload for row in fed if isinstance(row.payload, Pending)]
    assert [payload.request.seed for payload in payloads] == [row["seed"] for row in alike]


def test_only_rows_that_are_left_out_are_checked_for_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path / "t.parquet", [ROWS[0], {**ROWS[1], "prompt": " "}, *ROWS[2:]])
    resolved, asked, check = _resolved(tmp_path, on_invalid="skip"), [], RowPlan.row

    def noted(plan: RowPlan, index: int, cells: Sequence[Any]) -> Any:
        asked.append(index)
        return check(plan, index, cells)

    monkeypatch.setattr(RowPlan, "row", noted)
    with closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        asked.clear()
        write_invalid(resolved, index, run="r1")
    assert asked == [1]
    (left_out,) = records_of(tmp_path / "out", "invalid")
    assert (left_out["row_index"], left_out["reason"]) == (1, "prompt is ' ', but it is blank")


def test_an_output_in_memory_is_refused_since_workers_would_not_share_it(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", ROWS)
    with pytest.raises(JobError, match="is private to each process"):
        _resolved(tmp_path, output="memory://out")
    with pytest.raises(
        JobError, match=r"http://127\.0\.0\.1:9/a is a web page, where nothing can be written"
    ):
        _resolved(tmp_path, output="http://127.0.0.1:9/a")


def test_a_row_may_not_name_a_recipe_of_other_parameters(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", [{**ROWS[0], "recipe": "generate", "gain": 0.5}])
    resolved = _resolved(tmp_path, recipe="tests.faults:scaled")
    with closing(RowIndex()) as index:
        survey = survey_rows(resolved, index, Callback())
    assert "takes other arguments" in survey.invalid_lines()[0]
    with pytest.raises(RecipeError):
        _resolved(tmp_path, recipe="tests.faults:absent")


def test_a_row_imports_no_module_that_the_job_does_not_name(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", [{**ROWS[0], "recipe": "this:zen"}])
    with closing(RowIndex()) as index:
        survey = survey_rows(_resolved(tmp_path), index, Callback())
    assert "is not of a module that the job names" in survey.invalid_lines()[0]
    assert "this" not in sys.modules
