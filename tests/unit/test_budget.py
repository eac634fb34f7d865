"""What a job may spend: the rule, what earlier runs spent, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from framefleet import Store, Summary
from framefleet.cluster.driver import earlier_runs
from framefleet.cluster.driver.earlier_runs import Adoption, spent_before
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.driver.stop import JobBudget, Spent
from framefleet.cluster.driver.tally import Tally
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render import render
from framefleet.jobs.render.command import ending_lines
from framefleet.pipeline.errors import JobError, bytes_text, read_bytes, rounded
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.jobs import job_values, prompt_rows, resolved_from, write_table
from tests.outputs import UNDER_WAY, write_driver, write_output
from tests.rows import NOON, record

AN_HOUR = Spent(elapsed_s=3600, worker_s=4 * 3600, num_bytes=2_000_000)


@pytest.mark.parametrize(
    ("given", "reached"),
    [
        ({}, None),
        ({"hours": 1.5}, None),
        ({"hours": 1.0}, "hours"),
        ({"money": 10.5, "price": 2.5}, None),
        ({"money": 10.0, "price": 2.5}, "money"),
        ({"bytes": "3MB"}, None),
        ({"bytes": "2 MB"}, "bytes"),
        ({"hours": 9.0, "money": 99.0, "price": 1.0, "bytes": 10}, "bytes"),
    ],
)
def test_a_limit_is_reached_when_as_much_is_spent(given: dict[str, object], reached: str | None) -> None:
    assert JobBudget.model_validate(given).reached(AN_HOUR, 1) == reached


def test_what_is_said_names_the_limit_all_that_was_spent_and_how_to_continue() -> None:
    overrun = JobBudget(money=10.0, price=2.5).overrun("money", AN_HOUR, 1)
    assert overrun.message == (
        "budget.money is reached: all runs used 10.00, 10.00 is allowed "
        "(1.00 hours, 4.00 worker hours, 2.0 MB of clips, 10.00 of money)"
    )
    needed = Spent(num_bytes=9_000_000)
    overrun = JobBudget(bytes=1000).overrun("bytes", AN_HOUR, 1, needed=needed)
    assert overrun.to_continue == (
        "raise budget.bytes above 2.0 MB and run the same command again; all rows need about 9.0 MB"
    )
    of_a_run = JobBudget(bytes=1000, per="run").overrun("bytes", AN_HOUR, 1)
    assert "this run used 2.0 MB" in of_a_run.message
    assert of_a_run.to_continue == "run the same command again"


@pytest.mark.parametrize(
    ("began", "deadline"),
    [("2026-11-26T22:00", "2026-11-27T07:00"), ("2026-11-26T06:59", "2026-11-26T07:00")],
)
def test_a_run_stops_when_that_time_of_day_comes_next(began: str, deadline: str) -> None:
    budget = JobBudget(stop_at="07:00")
    assert budget.deadline(datetime.fromisoformat(began)) == datetime.fromisoformat(deadline)
    assert JobBudget(hours=1).deadline(datetime.fromisoformat(began)) is None


def test_a_budget_says_for_how_many_rows_it_is_enough() -> None:
    per_row = Spent(elapsed_s=360, num_bytes=500_000)
    budget = JobBudget(hours=3, bytes="3MB")
    assert budget.num_rows_left(AN_HOUR, per_row, 1) == 2
    assert JobBudget(price=2).num_rows_left(AN_HOUR, per_row, 1) is None
    # Workers that share a GPU cost their part of it.
    assert JobBudget(price=2.0, money=1.0).cost(AN_HOUR, 0.25) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"money": 5.0}, "budget` is"),
        ({"bytes": "much"}, "budget.bytes` is 'much'"),
        ({"hours": 0}, "budget.hours"),
        ({"euros": 5.0}, "euros"),
        ({"stop_at": "7 am"}, "budget.stop_at"),
        ({"stop_at": "24:00"}, "budget.stop_at"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(JobError, match=said):
        load_job({"table": "t.csv", "output": "out", "model": "m", "budget": given})


def test_earlier_runs_are_counted_as_their_drivers_said(tmp_path: Path) -> None:
    store = write_output(tmp_path, [record(number) for number in (1, 2, 3)])
    first, last = {"worker_seconds/rows": 120.0}, {"worker_seconds/rows": 10.0, "worker_seconds/load": 20.0}
    write_driver(store, 1, progress=replace(UNDER_WAY, elapsed_s=90, figures=first))
    write_driver(store, 2, progress=None)  # it rendered nothing, as `repair`
    write_driver(store, 3, progress=replace(UNDER_WAY, elapsed_s=30, figures=last))
    assert spent_before(store) == Spent(elapsed_s=120, worker_s=150, num_bytes=3 * 1234)


def test_the_days_between_two_runs_are_not_spent(tmp_path: Path) -> None:
    assert spent_before(Store(str(tmp_path / "none"))) == Spent()
    friday, monday = NOON, NOON + timedelta(days=3)
    adopted = record(1, started_at=friday, finished_at=friday)
    store = write_output(tmp_path, [adopted, record(2, started_at=monday, finished_at=monday)])
    write_driver(store, 1, progress=replace(UNDER_WAY, elapsed_s=60))
    assert spent_before(store).elapsed_s == 60


def test_what_a_driver_told_counts_though_it_was_killed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with DriverLock(store) as lock:
        lock.tell(replace(UNDER_WAY, elapsed_s=7.0, figures={"worker_seconds/rows": 5.0}))
        lock.seal()  # as with its next beat
        assert spent_before(store) == Spent(elapsed_s=7.0, worker_s=5.0)
    told = write_driver(store).to_bytes().decode()
    for said in ("1e999", "-9.0", '"long"'):  # as no driver can have
        store.write("drivers/000001.json", told.replace('"elapsed_s": 60.0', f'"elapsed_s": {said}').encode())
        assert spent_before(store) == Spent()


def test_clips_count_once_they_are_adopted_and_no_more_once_they_are_taken_back() -> None:
    tally = Tally(2, before=10, now=0.0)
    tally.adopted(1234)
    assert tally.progress(9.0).spent == Spent(elapsed_s=9.0, num_bytes=1234)
    tally.joined("w1", "a")
    tally.done("w1", 1.0, 1000)
    tally.withdrawn(1, num_bytes=234)
    assert tally.progress(9.0).spent.num_bytes == 2000
    before = tally.progress(9.0)
    tally.withdrawn(3, num_bytes=3, num_before=3)  # which this run is to render, then
    now = tally.progress(9.0)
    assert (now.before, now.total, now.done) == (before.before - 3, before.total + 3, before.done)


def test_no_clip_is_read_to_be_adopted_where_the_budget_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    monkeypatch.setattr(earlier_runs, "find_adoptable", lambda *_, **__: looked.append(1) or Adoption())
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(1)), tmp_path / "out")
    with resolved_from(values | {"budget": {"hours": 2}}) as resolved:
        write_driver(resolved.store, progress=replace(UNDER_WAY, elapsed_s=2 * 3600))
        assert render.run_of(resolved, RowIndex(), None, run_id="r1").over_budget(Spent(), now=NOON)  # type: ignore[arg-type]
        assert not looked
        write_driver(resolved.store, progress=replace(UNDER_WAY, elapsed_s=3600))
        render.run_of(resolved, RowIndex(), None, run_id="r1")  # type: ignore[arg-type]
        assert looked


def test_a_spent_budget_ends_with_exit_code_1_and_how_to_go_on(tmp_path: Path) -> None:
    ended = Summary(done=3, failed=2, elapsed_s=9.0, mean_batch=None)
    over = replace(ended, failed=0, over_budget="budget.hours is reached", to_continue="raise budget.hours")
    assert over.exit_code == 1
    lines = ending_lines(over, Store(str(tmp_path)))
    assert "stopped: budget.hours is reached" in lines
    assert "to continue: raise budget.hours" in lines[-1]
    listing = f"2 rows failed; run again to retry; to see why: framefleet failures {tmp_path}"
    assert listing in ending_lines(ended, Store(str(tmp_path)))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (read_bytes("24GB"), 24_000_000_000),
        (read_bytes("1.5 TiB"), 3 << 39),
        (read_bytes(7), 7),
        (read_bytes("500mb"), 500_000_000),
        (
            " ".join(map(rounded, (0, 0.0123456, 9.996, 99.97, 999.7, 1234.5, 1_234_567.0))),
            "0 0.0123 10 100 1,000 1,234 1,234,567",
        ),
        (" ".join(rounded(number, 4) for number in (0.5, 999.96, 1234.56)), "0.5 1,000 1,235"),
        (", ".join(map(bytes_text, (12, 1_234, 1_234_567, 2.5e12))), "12 bytes, 1.2 KB, 1.2 MB, 2.5 TB"),
    ],
)
def test_sizes_and_numbers_are_read_and_written_as_people_do(written: object, read: object) -> None:
    assert written == read
