"""A fleet that stays, by workers of this process: what it takes over and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

import framefleet
from framefleet import Store
from framefleet.cluster.driver.driver import Driver
from framefleet.cluster.driver.earlier_runs import note_apart
from framefleet.cluster.driver.run import Run
from framefleet.cluster.fleet.fleet import Fleet
from framefleet.jobs.render import render as render_module
from framefleet.pipeline.outputs.parts import parts
from framefleet.pipeline.render.audit.verdict import is_doubtful, kind_of_record
from tests.driven import WorkersHere
from tests.jobs import job_values, prompt_rows

ROWS = prompt_rows(6, num_inference_steps=1)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[Any]]:
    """Open a fleet of one worker of this process, on `out`."""

    def drive(run: Run, *_: object) -> Any:
        with closing(WorkersHere(run.setups, 1)) as workers:
            return Driver(run, on_progress=lambda _: None).run(cast(Fleet, workers))

    monkeypatch.setattr(render_module, "_drive", drive)
    values = job_values(tmp_path, tmp_path / "out")
    del values["table"]
    return lambda: framefleet.fleet(values)


def test_it_finishes_what_a_killed_withdrawal_left_and_what_a_killed_fleet_stored(
    tmp_path: Path, opened: Callable[[], AbstractContextManager[Any]]
) -> None:
    with opened() as fleet:
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
    with opened() as fleet:
        assert store.list("weights") == ["weights/left.safetensors"], "it has not taken the output yet"
        after = fleet.render(ROWS).to_pylist()
        assert not store.list("weights")
        assert fleet.summary and fleet.summary.done == len(doubtful)
    then = {record["row_id"]: record["finished_at"] for record in before}
    assert {r["row_id"] for r in after if r["finished_at"] != then[r["row_id"]]} == doubtful
    assert not any(is_doubtful(record["environment"]) for record in after if record["row_id"] in doubtful)


def test_calls_with_new_rows_read_few_columns_of_the_records_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[[], AbstractContextManager[Any]]
) -> None:
    """An output of many calls has many parts."""
    whole, read_part = list[str](), parts.read_part

    def noted(store: Store, path: str, fields: pa.Schema | None) -> pa.Table:
        if fields is None or "seed" in fields.names:
            whole.append(path)
        return read_part(store, path, fields)

    with opened() as fleet:
        first = fleet.render(ROWS[:2])
        earlier = {path for path in Store(str(tmp_path / "out")).list("records") if path.endswith(".parquet")}
        monkeypatch.setattr(parts, "read_part", noted)
        second = fleet.render(ROWS[2:4])
        assert second.schema == first.schema and second["seed"].to_pylist() == [2, 3]
        assert earlier and whole and earlier.isdisjoint(whole)
        both = fleet.render([*ROWS[4:], *ROWS[:2]])
        assert both["row_id"].to_pylist()[2:] == first["row_id"].to_pylist() and len(both) == 4
