"""As many workers as the rows left need: Ray's autoscaler adds machines for them, and takes them away."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import ray

import framefleet
from framefleet import Progress
from framefleet.cluster.fleet.ray_start import end_ray
from tests.autoscaler import autoscaled_cluster
from tests.jobs import job_values, prompt_rows, records_of, wait_until, write_table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="starts raylets on one machine")
NUM_ROWS = 160  # of half a second each: more than enough for machines to start, on a busy machine too


def job(tmp_path: Path, *, address: str | None, workers: dict[str, float]) -> dict[str, Any]:
    table = write_table(tmp_path / "t.parquet", prompt_rows(NUM_ROWS, num_inference_steps=1))
    values = job_values(
        table, tmp_path / "out", address=address, recipe="tests.faults:lingers", audit={"every": 0}
    )
    values["fleet"]["workers"] = workers
    values["retries"] = {"copies": False}  # else a worker may have one when the last row ends
    return values


def test_machines_are_added_for_the_rows_left_and_taken_away_again(tmp_path: Path) -> None:
    seen: list[Progress] = []
    with autoscaled_cluster(max_machines=3) as address:
        values = job(tmp_path, address=address, workers={"min": 1, "max": 3, "target_s": 8})
        summary = framefleet.render(values, on_progress=seen.append)
        assert (summary.done, summary.failed) == (NUM_ROWS, 0)
        ray.init(address=address, log_to_driver=False)
        try:
            # Until machines without work are no longer there.
            wait_until(lambda: len([node for node in ray.nodes() if node["Alive"]]) == 1)
        finally:
            end_ray()
    assert len(records_of(tmp_path / "out")) == NUM_ROWS
    workers = seen[-1].workers
    assert 1 < len(workers) <= 3, "one at first, more once the first rows say how long the others take"
    assert {worker.state for worker in workers} <= {"drained", "idle"}
    assert sum(worker.rows_done for worker in workers) == NUM_ROWS
