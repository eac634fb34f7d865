"""The second pass over the table: it must find the rows that the first pass checked."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import framefleet
from framefleet.cluster.dispatch.dispatcher import Dispatcher, LeaseSize
from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.dispatch.lease import Paces, Row
from framefleet.cluster.driver.feed import Feed, Pending, pending_rows
from framefleet.cluster.driver.lanes import order_of
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.render import run_of
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError, RecipeError, TableError
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.rows import RowPlan
from tests.jobs import job_values, prompt_rows, write_table

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
    run = run_of(_resolved(tmp_path, retries=retries), RowIndex(), None, run_id="r1")  # type: ignore[arg-type]
    assert run.retries == FaultPolicy(**retries)


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
        run = run_of(resolved, index, None, run_id="r1")  # type: ignore[arg-type]
        dispatcher = Dispatcher(size=LeaseSize(max_rows=1), order=order_of(order, Paces()))
        feed = Feed(run, dispatcher, {}, lambda row_id, pending: False, lane=LaneKey(), table=run.table)
        feed.fill()
        dispatcher.join("w")
        leases = [dispatcher.lease("w", 0.0)]
        while lease := leases[-1]:
            dispatcher.done("w", lease.rows[0].row.row_id, 0.0)
            leases.append(dispatcher.lease("w", 0.0))
        payloads = [lease.rows[0].row.payload for lease in leases if lease]
    assert [payload.request.seed for payload in payloads if isinstance(payload, Pending)] == seeds


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        ("priority:urgnt", "no carried column or argument is called 'urgnt'\nhint: did you mean 'urgent'"),
        ("priority:prompt", "'prompt' holds string"),
        ("shortest", "`order` is 'shortest'\nhint: it must be table, longest or priority:COLUMN"),
    ],
)
def test_an_order_that_rows_cannot_be_put_in_is_refused(order: str, problem: str, tmp_path: Path) -> None:
    job = job_values(write_table(tmp_path / "t.parquet", RANKED), tmp_path / "out", order=order)
    with pytest.raises(JobError, match=problem):
        framefleet.plan(job)


def test_every_checked_row_is_fed_once_and_a_table_changed_meanwhile_refused(tmp_path: Path) -> None:
    assert len({row.row_id for row in _pending(tmp_path)}) == len(ROWS)
    for changed in ([{**ROWS[0], "seed": 99}, *ROWS[1:]], ROWS[:2], [{**ROWS[0], "prompt": ""}, *ROWS[1:]]):
        with pytest.raises(TableError, match="was changed while the job ran"):
            _pending(tmp_path, changed)


def test_rows_that_are_added_before_the_first_is_read_are_not_missed(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", ROWS)
    resolved = _resolved(tmp_path)
    with closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        rows = pending_rows(resolved.table, resolved.rows, index, num_pending=index.num_pending(None))
        index.add([(len(ROWS), "e" * 32), (len(ROWS) + 1, "f" * 32)])
        assert len(list(rows)) == len(ROWS)


def test_the_table_is_not_read_on_after_its_last_pending_row(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", prompt_rows(10_000))
    resolved, num_batches = _resolved(tmp_path), 0

    def batches(*, start: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        nonlocal num_batches
        for batch in resolved.table.batches(start=start):
            num_batches += 1
            yield batch

    with closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        index.leave_only([row_id for _, row_id in index.pending_in(1, 1)])
        table = SimpleNamespace(batches=batches)
        assert len(list(pending_rows(table, resolved.rows, index))) == 1  # type: ignore[arg-type]
    assert num_batches <= 2


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


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("memory://out", "is private to each process"),
        ("http://127.0.0.1:9/a", "is a web page, where nothing can be written"),
    ],
)
def test_an_output_that_workers_cannot_share_is_refused(output: str, problem: str, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", ROWS)
    with pytest.raises(JobError, match=f"{output} {problem}"):
        framefleet.plan(job_values(table, tmp_path / "out") | {"output": output})


def test_a_row_names_no_recipe_of_other_parameters_or_of_a_strange_module(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "recipe": "generate", "gain": 0.5}, {**ROWS[0], "recipe": "this:zen", "gain": 1.0}]
    write_table(tmp_path / "t.parquet", rows)
    resolved = _resolved(tmp_path, recipe="tests.faults:scaled")
    with closing(RowIndex()) as index:
        first, second = survey_rows(resolved, index, Callback()).invalid_lines()
    assert "takes other arguments" in first and "is not in a module that the job names" in second
    assert "this" not in sys.modules
    with pytest.raises(RecipeError):
        _resolved(tmp_path, recipe="tests.faults:absent")
