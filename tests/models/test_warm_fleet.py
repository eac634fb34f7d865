"""A fleet that stays, by workers of this process: what it takes over and what it leaves."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

import framefleet
from framefleet import Inputs, Request, Store
from framefleet.cluster.driver.driver import Driver
from framefleet.cluster.driver.earlier_runs import note_apart
from framefleet.cluster.driver.feed import Work
from framefleet.cluster.fleet.fleet import Fleet
from framefleet.cluster.worker.messages import Assignment, Hello
from framefleet.cluster.worker.queues import Writers
from framefleet.jobs.render import render as render_module
from framefleet.pipeline.outputs.parts import parts
from framefleet.pipeline.render.audit.verdict import is_doubtful, kind_of_record
from tests.driven import WorkersHere
from tests.jobs import job_values, prompt_rows
from tests.one_worker import WITHIN_S, started_worker, stored_by, worker_setup
from tests.tiny import SMALLEST

ROWS = prompt_rows(6, num_inference_steps=1)


def drive(work: Work, *_: object) -> Any:
    with closing(WorkersHere(work.setups, 1)) as workers:
        return Driver(work, on_progress=lambda _: None).run(cast(Fleet, workers))


def test_it_finishes_what_a_killed_withdrawal_left_and_what_a_killed_fleet_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render_module, "_drive", drive)
    job = {name: value for name, value in job_values(tmp_path, tmp_path / "out").items() if name != "table"}
    with framefleet.fleet(job) as fleet:
        before = fleet.render(ROWS).to_pylist()
    store = Store(str(tmp_path / "out"))
    kind = kind_of_record(next(record for record in before if is_doubtful(record["environment"])))
    doubtful = {
        record["row_id"]
        for record in before
        if is_doubtful(record["environment"]) and kind_of_record(record) == kind
    }
    note_apart(store, kind)  # and then the driver was killed
    store.write("weights/left.safetensors", b"by a fleet that was killed")
    with framefleet.fleet(job) as fleet:
        assert store.list("weights") == ["weights/left.safetensors"], "it has not taken the output yet"
        after = fleet.render(ROWS).to_pylist()
        assert not store.list("weights")
        assert fleet.summary and fleet.summary.done == len(doubtful)
    then = {record["row_id"]: record["finished_at"] for record in before}
    assert {r["row_id"] for r in after if r["finished_at"] != then[r["row_id"]]} == doubtful
    assert not any(is_doubtful(record["environment"]) for record in after if record["row_id"] in doubtful)


def test_calls_with_new_rows_read_few_columns_of_the_records_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output of many calls has many parts."""
    monkeypatch.setattr(render_module, "_drive", drive)
    job = {name: value for name, value in job_values(tmp_path, tmp_path / "out").items() if name != "table"}
    whole, read_part = list[str](), parts.read_part

    def noted(store: Store, path: str, fields: pa.Schema | None) -> pa.Table:
        if fields is None or "seed" in fields.names:
            whole.append(path)
        return read_part(store, path, fields)

    with framefleet.fleet(job) as fleet:
        first = fleet.render(ROWS[:2])
        earlier = {path for path in Store(str(tmp_path / "out")).list("records") if path.endswith(".parquet")}
        monkeypatch.setattr(parts, "read_part", noted)
        second = fleet.render(ROWS[2:4])
        assert second.schema == first.schema and second["seed"].to_pylist() == [2, 3]
        assert earlier and whole and earlier.isdisjoint(whole)
        both = fleet.render([*ROWS[4:], *ROWS[:2]])
        assert both["row_id"].to_pylist()[2:] == first["row_id"].to_pylist() and len(both) == 4


def test_a_worker_that_serves_another_driver_starts_no_more_threads(tmp_path: Path) -> None:
    worker = started_worker(worker_setup("wan", Store(str(tmp_path)), Inputs([])))
    threads = {*threading.enumerate()}  # of which some may be ending
    worker.renew(None)
    assert isinstance(worker.start(), Hello)
    assert not {*threading.enumerate()} - threads
    worker.exchange([], drain=True)


def test_a_row_that_is_still_being_stored_for_another_driver_is_not_rendered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_storing, may_store, store_clip = threading.Event(), threading.Event(), Writers._stored

    def stored(*values: Any) -> Any:
        is_storing.set()
        assert may_store.wait(WITHIN_S)
        return store_clip(*values)

    monkeypatch.setattr(Writers, "_stored", stored)
    worker = started_worker(worker_setup("wan", Store(str(tmp_path)), Inputs([])))
    fox, owl = (
        Assignment(row_id=name, attempt=1, request=Request(arguments=SMALLEST["wan"] | {"prompt": name}))
        for name in ("fox", "owl")
    )
    worker.exchange([fox])
    assert is_storing.wait(WITHIN_S)
    worker.renew(None)
    assert isinstance(worker.start(), Hello)
    assert not worker.exchange([fox, owl]).rendered
    may_store.set()
    assert sorted(row.record.row_id for row in stored_by(worker, 2)) == ["fox", "owl"]
    assert not worker.exchange([]).rendered
    worker.exchange([], drain=True)
