"""A worker that is told to leave rows, as another one was first, goes on with those that are left."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from framefleet import Inputs, Request, Store
from framefleet.cluster.worker.messages import Assignment
from framefleet.pipeline.recipes.recipe import Recipe
from tests.one_worker import started_worker, stored_by, worker_setup
from tests.tiny import SMALLEST

IS_AWAY, GOES_ON = threading.Event(), threading.Event()
ENDS: list[bool] = []  # of the waiting


def looking(pipe: Any, request: Request) -> Any:
    """Look at the frames: of row 1 until the test lets it go on."""
    frames = np.asarray(pipe(**request.arguments, generator=request.generator(), output_type="np").frames)
    if request.seed == 1:
        IS_AWAY.set()
        ENDS.append(GOES_ON.wait(60))
    return frames


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


def test_the_driver_is_answered_while_a_row_is_left_that_runs_on_a_thread_of_its_own(tmp_path: Path) -> None:
    setup = worker_setup("wan", Store(str(tmp_path / "out")), Inputs([str(tmp_path)]))
    recipe = Recipe(name="looking", function=looking, digest="")
    worker = started_worker(replace(setup, recipes={"looking": recipe}))
    rows = [_row(number) for number in range(2)]
    rows = [replace(row, request=replace(row.request, recipe="looking")) for row in rows]
    stored_by(worker, 1, rows[:1])
    worker.exchange(rows[1:])
    assert IS_AWAY.wait(60)
    worker.exchange([], [rows[1].row_id])
    for _ in range(3):
        worker.exchange([])
    assert not ENDS
    GOES_ON.set()
    last = replace(_row(2).request, recipe="looking")
    assert [stored.record.seed for stored in stored_by(worker, 1, [replace(_row(2), request=last)])] == [2]
    assert not worker._attempts
