"""The Ray of the driver's own machine is killed under it: told in time, and what was finished is kept."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.jobs import (
    check_whole,
    descendants,
    job_values,
    prompt_rows,
    records_of,
    write_job,
    write_table,
)
from tests.warm.process import start

NUM_ROWS = 200  # at half a second each: more than can be done before it is noticed


@pytest.mark.ci
@pytest.mark.parametrize(
    ("process", "told", "within_s"),
    [
        ("gcs_server", "the head of the Ray cluster has not answered for", 40),
        ("raylet", "the Ray of this machine (its raylet) has ended", 20),
    ],
)
def test_a_job_whose_ray_is_killed_says_so_and_loses_no_finished_row(
    tmp_path: Path, process: str, told: str, within_s: float
) -> None:
    rows = prompt_rows(NUM_ROWS)
    table = write_table(tmp_path / "t.parquet", rows)
    job = write_job(tmp_path / "job.yaml", job_values(table, tmp_path / "out", recipe="tests.faults:lingers"))
    render = start("-m", "framefleet.jobs.cli", "render", job, "--log-format", "json")
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("out/clips/*/[!.]*.mp4"))) < 4:
        assert render.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    finished = len(list(tmp_path.glob("out/clips/*/[!.]*.mp4")))
    os.kill(child(render.pid, process), signal.SIGKILL)
    killed_at = time.monotonic()
    printed, _ = render.communicate(timeout=120)
    assert render.returncode == 3, printed
    lines = [json.loads(line) for line in printed.splitlines()]
    assert any(told in line["message"] for line in lines)
    assert time.monotonic() - killed_at < within_s
    assert "run the same command again to continue" in printed
    records = records_of(tmp_path / "out")
    assert finished <= len(records) < NUM_ROWS
    check_whole(tmp_path / "out")


def child(pid: int, name: str) -> int:
    """Return the process of this name below another."""
    (found,) = (p for p in descendants(pid) if Path(f"/proc/{p}/comm").read_text().strip() == name)
    return found
