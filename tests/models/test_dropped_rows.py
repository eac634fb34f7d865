"""A worker that is told to leave rows, as another one was first, goes on with those that are left."""

from __future__ import annotations

from pathlib import Path

from framefleet import Inputs, Request, Store
from framefleet.cluster.worker.messages import Assignment
from tests.one_worker import started_worker, stored_by, worker_setup
from tests.tiny import SMALLEST


def _row(number: int, **arguments: int) -> Assignment:
    given = {**SMALLEST["wan"], "max_sequence_length": 32, "prompt": "a fox", **arguments}
    return Assignment(row_id=f"{number:032x}", request=Request(arguments=given, seed=number), attempt=1)


def test_rows_that_are_dropped_are_neither_stored_nor_reported(tmp_path: Path) -> None:
    worker = started_worker(worker_setup("wan", Store(str(tmp_path / "out")), Inputs([str(tmp_path)])))
    endless, last = _row(0, num_inference_steps=1000), _row(30)
    waiting = [_row(number) for number in range(1, 30)]
    worker.exchange([endless, *waiting])
    worker.exchange([], [row.row_id for row in (endless, *waiting)])
    found = {stored.record.row_id for stored in stored_by(worker, 1, [last])}
    while last.row_id not in found:
        found |= {stored.record.row_id for stored in stored_by(worker, 1)}
    assert endless.row_id not in found
    assert len(found) < len(waiting)
    report = worker.exchange([], drain=True)
    assert not report.handed_back and not report.failed
