"""Rows that are interrupted go on where they were: after signals, kills, machines that are taken away."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import framefleet
from tests import jobs
from tests.commands import command
from tests.servers import warm_program

NUM_STEPS = 24
ROWS = jobs.prompt_rows(4, num_inference_steps=NUM_STEPS, guidance_scale=1.0)
NUM_FORWARDS = len(ROWS) * NUM_STEPS


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: str) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    framefleet.render(quick_job(folder, ray_cluster))
    return folder


@pytest.mark.promise("It does not matter which rows shared a batch", "exit code 143")
def test_rows_in_mid_clip_go_on_where_they_were(tmp_path: Path, ray_cluster: str, undisturbed: Path) -> None:
    # So that none is done while another worker starts, or the signal is sent.
    job = slow_job(tmp_path, [row | {"pause_s": 1.0} for row in ROWS], ray_cluster)
    process = jobs.start_render(job)
    jobs.wait_until(lambda: is_in_mid_clip(tmp_path), process)
    os.kill(process.pid, signal.SIGTERM)
    printed = jobs.finish(process, exits=143)
    assert f"hint: to continue: framefleet render {job}" in printed
    kept = len(checkpoints(tmp_path))
    assert 1 <= kept <= 2, "one of each worker, unless it was between two"
    assert f"{kept} half-done row" in printed
    (tmp_path / "hurry").touch()
    command("render", job, exits=0)
    assert frames_of(tmp_path) == frames_of(undisturbed)
    assert num_forwards(tmp_path) <= NUM_FORWARDS + kept, "a step of each is repeated, at most"
    assert not checkpoints(tmp_path)


@pytest.mark.promise("exit code 129")
def test_a_terminal_that_goes_leaves_half_done_rows_and_no_lock(tmp_path: Path, ray_cluster: str) -> None:
    ours, theirs = pty.openpty()
    long = [row | {"pause_s": 1.0} for row in ROWS]  # so that none is done while another worker starts
    render = [sys.executable, "-m", "framefleet", "render", slow_job(tmp_path, long, ray_cluster)]
    process = subprocess.Popen(
        ["setsid", "--ctty", *map(str, render)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=jobs.ROOT,
        env={**os.environ, "PYTHONPATH": str(jobs.ROOT), "OMP_NUM_THREADS": "1", "TERM": "dumb"},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # which nohup ignores
    )
    os.close(theirs)
    os.set_blocking(ours, False)

    def is_read_and_in_mid_clip() -> bool:
        """Read what is printed: when a terminal's 4 KiB are full, who prints waits."""
        with suppress(OSError):  # all is read, or it ended
            while os.read(ours, 1 << 16):
                pass  # nobody wants it
        return is_in_mid_clip(tmp_path)

    jobs.wait_until(is_read_and_in_mid_clip, process)
    os.close(ours)
    assert process.wait(timeout=240) == 129
    assert checkpoints(tmp_path)
    assert not (tmp_path / "out" / "driver.lock").exists()


def test_rows_of_a_machine_that_is_to_go_go_on_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Path
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with warm_program("two_nodes") as (address, tell):
        process = jobs.start_render(slow_job(tmp_path, ROWS, address))
        jobs.wait_until(lambda: is_in_mid_clip(tmp_path), process)
        tell("drain")
        said = jobs.finish(process)
    assert "its machine will go soon; its rows are given to other workers" in said
    assert frames_of(tmp_path) == frames_of(undisturbed)
    assert num_forwards(tmp_path) <= NUM_FORWARDS + 1
    assert not checkpoints(tmp_path)


def test_workers_that_users_start_hand_back_their_rows_each_by_itself(tmp_path: Path) -> None:
    job = slow_job(tmp_path, jobs.prompt_rows(8, num_inference_steps=NUM_STEPS, guidance_scale=1.0))
    process = jobs.start_render(
        job, is_cold=True
    )  # whose workers are forks of `fleet/warm/`, not of the tests'
    jobs.wait_until(lambda: is_in_mid_clip(tmp_path), process)
    pids = {int(line) for line in forwards_file(tmp_path).read_text().split()}
    assert {os.getsid(pid) for pid in pids} == pids, "Ray kills what is in the session of one that ended"
    os.kill(process.pid, signal.SIGTERM)
    printed = jobs.finish(process, exits=143)
    assert " is lost" not in printed
    kept = len(checkpoints(tmp_path))
    assert 1 <= kept <= 2, "one of each worker, unless it was between two"
    assert f"{kept} half-done row" in printed


def quick_job(folder: Path, address: str) -> Path:
    values = jobs.job_values(jobs.write_table(folder / "t.parquet", ROWS), folder / "out", address=address)
    return jobs.write_job(folder / "job.yaml", values)


def slow_job(folder: Path, rows: list[dict[str, Any]], address: str | None = None, **more: Any) -> Path:
    """Return a job whose rows take more than a second, one at a time on each of two workers."""
    # A copy's forwards would be counted too.
    more["retries"] = {"copies": False, **more.pop("retries", {})}
    values = jobs.job_values(
        jobs.write_table(folder / "t.parquet", rows),
        folder / "out",
        address=address,
        recipe="tests.faults:slow",
        batching={"max_rows": 1},
        audit={"every": 0},
        **more,
    )
    values["defaults"]["forwards"] = str(forwards_file(folder))
    return jobs.write_job(folder / "job.yaml", values)


def frames_of(folder: Path) -> dict[str, str]:
    return {row["tag"]: row["frames_sha256"] for row in jobs.records_of(folder / "out")}


def forwards_file(folder: Path) -> Path:
    return folder / "forwards"


def num_forwards(folder: Path) -> int:
    """Return how many forwards there were, of all rows and runs."""
    return len(forwards_file(folder).read_text().splitlines()) if forwards_file(folder).exists() else 0


def is_in_mid_clip(folder: Path) -> bool:
    """Tell whether all have begun, and the last that was heard of is in the first half of a row."""
    lines = forwards_file(folder).read_text().split() if forwards_file(folder).exists() else []
    return len(set(lines)) == 2 and 3 < lines.count(lines[-1]) % NUM_STEPS < NUM_STEPS // 2


def checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("out/checkpoints/[!.]*"))
