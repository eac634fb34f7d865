"""The Ray of the driver's own machine is killed under it: that is said, and what was finished is kept."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests import jobs
from tests.warm.process import start

ROWS_PER_S = 16  # of silence: more than can be done, at half a second each, before it is noticed


@pytest.mark.promise("exit code 3", "Kill any process at any time")
@pytest.mark.parametrize(
    ("process", "told", "silence_s"),
    [
        ("gcs_server", "the head of the Ray cluster has not answered for", 12),
        # Longer than Ray itself would let this process live.
        pytest.param("gcs_server", "the head of the Ray cluster has not", 75, marks=pytest.mark.long),
        ("raylet", "the Ray of this machine (its raylet) has ended", 12),
    ],
)
def test_a_job_whose_ray_is_killed_says_so_and_loses_no_finished_row(
    tmp_path: Path, process: str, told: str, silence_s: float
) -> None:
    num_rows = round(ROWS_PER_S * silence_s)
    table = jobs.write_table(tmp_path / "t.parquet", jobs.prompt_rows(num_rows))
    fleet = {"workers": 2, "gpus_per_worker": 0, "silence_s": silence_s}
    values = jobs.job_values(table, tmp_path / "out", recipe="tests.faults:lingers", fleet=fleet)
    job = jobs.write_job(tmp_path / "job.yaml", values)
    render = start("-m", "framefleet.jobs.cli", "render", job, "--log-format", "json")
    jobs.wait_until(lambda: jobs.num_clips(tmp_path / "out") >= 4, render)
    finished = jobs.num_clips(tmp_path / "out")
    os.kill(child(render.pid, process), signal.SIGKILL)
    printed = jobs.finish(render, exits=3, timeout_s=120)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert any(told in line["message"] for line in lines)
    assert "run the same command again to continue" in printed
    records = jobs.records_of(tmp_path / "out")
    assert finished <= len(records) < num_rows
    jobs.check_whole(tmp_path / "out")


def child(pid: int, name: str) -> int:
    """Return the process of this name below another."""
    (found,) = (p for p in jobs.descendants(pid) if Path(f"/proc/{p}/comm").read_text().strip() == name)
    return found
