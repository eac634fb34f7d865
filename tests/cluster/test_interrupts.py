"""Ctrl-C and SIGTERM: what was finished is kept, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import framefleet
from tests.commands import command
from tests.jobs import (
    check_whole,
    holder_of,
    job_values,
    prompt_rows,
    records_of,
    start_render,
    write_job,
    write_table,
)


# Of SIGTERM, tests/cluster/test_drain.py tells as much.
def test_an_interrupted_job_keeps_what_it_has_and_says_how_to_go_on(tmp_path: Path, ray_cluster: str) -> None:
    rows = prompt_rows(40, height=48, width=48)
    for row in rows[-8:]:  # so that a slow machine sends the signal before they are done
        row["num_inference_steps"] = 200
    job = write_job(
        tmp_path / "job.yaml", job_values(write_table(tmp_path / "t.parquet", rows), tmp_path / "out")
    )
    process = start_render(job)
    wait_for_clips(process, tmp_path / "out", 4)
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 130, printed
    assert f"hint: to continue: framefleet render {job}" in printed
    assert "Traceback" not in printed
    done = len(records_of(tmp_path / "out"))
    assert 0 < done < len(rows)
    holder = holder_of(tmp_path / "out")
    assert holder is not None and holder.ended
    check_whole(tmp_path / "out")
    assert f"{done} done" in command("render", job, f"--set=fleet.address={ray_cluster}").stderr
    assert len(records_of(tmp_path / "out")) == len(rows)


def test_a_job_is_stopped_from_elsewhere_and_goes_on(tmp_path: Path, ray_cluster: str) -> None:
    rows, out = prompt_rows(100), tmp_path / "out"
    values = job_values(write_table(tmp_path / "t.parquet", rows), out, address=ray_cluster)
    process = start_render(write_job(tmp_path / "job.yaml", values | {"recipe": "tests.faults:lingers"}))
    while not list(out.glob("drivers/*.json")):  # their folder is there before
        assert process.poll() is None
        time.sleep(0.1)
    found = command("stop", out)
    assert found.exit_code == 0 and found.stdout.startswith("asked the driver on "), found.output
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 130, printed
    assert "asked to end by `framefleet stop`" in printed and "to continue: framefleet render" in printed
    assert len(records_of(out)) < len(rows)
    check_whole(out)
    refused = command("stop", out)
    assert refused.exit_code == 2 and "no job writes to" in refused.stderr
    assert command("render", tmp_path / "job.yaml", "--limit", "2").exit_code == 0


@pytest.mark.ci
def test_a_job_is_paused_gets_more_rows_and_goes_on(tmp_path: Path, ray_cluster: str) -> None:
    rows, out = prompt_rows(100), tmp_path / "out"
    values = job_values(write_table(tmp_path / "t.parquet", rows), out, address=ray_cluster)
    values |= {"recipe": "tests.faults:lingers", "budget": {"hours": 1}}
    process = start_render(write_job(tmp_path / "job.yaml", values))
    wait_for_clips(process, out, 2)
    assert command("pause", out).stdout.startswith("asked the driver on ")
    while not (found := framefleet.status(str(out))).paused_since or {"rendering", "idle"} & {
        worker.state for worker in found.workers
    }:
        assert process.poll() is None
        time.sleep(0.2)
    assert found.num_left and f"paused since {found.paused_since}" in command("status", out).stdout
    num_clips = len(list(out.glob("clips/*/[!.]*.mp4")))
    time.sleep(2)
    assert process.poll() is None and len(list(out.glob("clips/*/[!.]*.mp4"))) == num_clips < len(rows)
    added = framefleet.add(str(out), prompt_rows(104)[98:], sets=["recipe=tests.faults:lingers"])
    assert added.num_rows == 6
    framefleet.resume(str(out))
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    assert "paused by `framefleet pause`" in printed and "resumed: workers start again" in printed
    assert len({record["row_id"] for record in records_of(out)}) == len(records_of(out)) == len(rows) + 4
    check_whole(out)
    found = framefleet.status(str(out))
    assert (found.num_rows, found.num_left, found.paused_since) == (len(rows) + 4, 0, "")


def wait_for_clips(
    process: subprocess.Popen[str], output: Path, num_clips: int, *, timeout_s: float = 400
) -> None:
    deadline = time.monotonic() + timeout_s
    while len(list(output.glob("clips/*/[!.]*.mp4"))) < num_clips:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=10)[0]
        time.sleep(0.05)
