"""The same table, disturbed in every way: the same bits, exactly one record each."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet.cluster.driver.driver import Driver
from framefleet.pipeline import metrics
from tests import jobs
from tests.commands import command
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table
from tests.mixed import DTYPES, mixed_table
from tools.conformance.batches import rendered_by_fleet
from tools.conformance.finding import compare
from tools.conformance.plain import plain_calls

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
        process.kill()  # the driver only: what it started must notice by itself
        process.communicate(timeout=60)
        left, committed = jobs.num_clips(folder / "out"), len(jobs.records_of(folder / "out"))
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


def _wait_for_clips(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until the driver has claimed the output, and so many clips are there."""

    def is_there() -> bool:
        is_over = process.poll() is not None  # a resumed job may have nothing left to do
        return is_over or ((output / "job.json").exists() and jobs.num_clips(output) >= count)

    jobs.wait_until(is_there)


@pytest.fixture
def both_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give rows once both workers are ready, and more once both have some: a fast one may leave none."""
    assignments, have = Driver._assignments, set[str]()

    def in_turn(driver: Driver, worker: str) -> list[Any]:
        num_there = driver._lanes.of(worker).dispatcher.num_workers
        if len(have) < 2 and (num_there < 2 or worker in have):
            return []
        if given := assignments(driver, worker):
            have.add(worker)
        return given

    monkeypatch.setattr(Driver, "_assignments", in_turn)


@pytest.mark.promise("Its frames equal those of", "It does not matter which rows shared a batch")
@pytest.mark.usefixtures("both_work")
@pytest.mark.parametrize(("name", "dtype"), [("wan", "bf16"), ("cogvideox_i2v", "fp32"), ("sd", "bf16")])
def test_a_fleet_renders_the_frames_of_plain_diffusers_calls(
    name: str, dtype: str, tmp_path: Path, ray_cluster: str
) -> None:
    """Of one model of each kind; tests/periphery/models/test_conformance.py has them all, in one process."""
    rows = mixed_table(name, tmp_path, most=8)
    found = rendered_by_fleet(name, dtype, rows, tmp_path, address=ray_cluster)
    plain = plain_calls(name, DTYPES[dtype], rows, tmp_path)
    now = compare(name, {row["seed"]: made for row, made in zip(rows, plain, strict=True)}, found)
    assert (now.equal, now.why) == (len(rows), "")
    assert now.mean_batch > 1
    assert {record["worker"] for record in records_of(tmp_path / "out")} == {"worker-0", "worker-1"}


def test_the_next_job_begins_with_the_batch_sizes_that_were_found(tmp_path: Path, ray_cluster: str) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(4, num_inference_steps=2, guidance_scale=3.0))
    digests = []
    for turn in ("first", "second"):
        values = job_values(table, tmp_path / turn, address=ray_cluster)
        values["fleet"] |= {"workers": 1}
        said = command("render", write_job(tmp_path / f"{turn}.yaml", values)).stderr
        assert list((tmp_path / turn / ".probes").glob("*/*.json"))
        digests.append(sorted(record["frames_sha256"] for record in records_of(tmp_path / turn)))
    assert "from earlier runs on this machine" in said
    assert digests[0] == digests[1]
