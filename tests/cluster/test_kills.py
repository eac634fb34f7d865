"""The same table, disturbed in every way: the same bits, exactly one record each."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import framefleet
from framefleet.pipeline import metrics
from tests import jobs

ROWS = jobs.prompt_rows(24)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: str) -> dict[str, tuple[str, str]]:
    """What one worker renders, in table order, without batching."""
    folder = tmp_path_factory.mktemp("undisturbed")
    table = jobs.write_table(folder / "prompts.parquet", ROWS)
    fleet = {"workers": 1, "address": ray_cluster}
    framefleet.render(jobs.job_values(table, folder / "out", batching={"max_rows": 1}, fleet=fleet))
    return jobs.digests_by_tag(folder / "out")


@pytest.mark.promise("Kill any process at any time")
def test_a_killed_worker_changes_nothing(undisturbed: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    for folder in _folders(tmp_path):
        process = jobs.start_render(_job(folder, ROWS))
        _wait_for_clips(folder / "out", 6, process)
        workers = jobs.worker_pids(process.pid)
        if workers:
            os.kill(workers[0], signal.SIGKILL)
        jobs.finish(process)
        assert jobs.digests_by_tag(folder / "out") == undisturbed
        assert len(jobs.records_of(folder / "out")) == len(ROWS)
        if workers:
            return
    pytest.fail("all rows were done each time")


def _folders(tmp_path: Path) -> Iterator[Path]:
    """Yield folders for some tries: after a pause of this process all rows may be done."""
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        yield folder


@pytest.mark.promise("Kill any process at any time", "Nothing is lost, and nothing is done twice")
def test_a_driver_killed_at_half_goes_on_where_it_was_and_renders_no_clip_again(
    undisturbed: dict[str, tuple[str, str]], tmp_path: Path, ray_cluster: str
) -> None:
    for folder in _folders(tmp_path):
        process = jobs.start_render(_job(folder, ROWS))
        _wait_for_clips(folder / "out", len(ROWS) // 2, process)
        _kill(process)
        left, committed = _num_clips(folder / "out"), len(jobs.records_of(folder / "out"))
        if left < len(ROWS):
            break
    assert left < len(ROWS)
    summary = framefleet.render(_job(folder, ROWS, ray_cluster))
    num_adopted = metrics.ROW_OUTCOMES.of(summary.figures, "adopted")
    assert left - committed <= num_adopted <= summary.done == len(ROWS) - committed
    assert jobs.digests_by_tag(folder / "out") == undisturbed
    assert len(jobs.records_of(folder / "out")) == len(ROWS)


def _job(folder: Path, rows: list[dict[str, object]], address: str | None = None) -> Path:
    table = jobs.write_table(folder / "prompts.parquet", rows)
    return jobs.write_job(folder / "job.yaml", jobs.job_values(table, folder / "out", address=address))


def _num_clips(output: Path) -> int:
    return len(list(output.glob("clips/*/*.mp4")))


def _wait_for_clips(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until the driver has claimed the output, and so many clips are there."""
    deadline = time.monotonic() + 120
    while not (output / "job.json").exists() or _num_clips(output) < count:
        assert time.monotonic() < deadline, f"no {count} clips in time"
        if process.poll() is not None:
            return  # a resumed job may have nothing left to do
        time.sleep(0.05)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill the driver only; what it started must notice by itself."""
    process.kill()
    process.communicate(timeout=60)
