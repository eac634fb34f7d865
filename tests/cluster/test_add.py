"""Rows that are added to a job until its end are rendered, or their adder hears that they are not."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import framefleet
from framefleet import Store
from framefleet.plugins.watch.add import Addition
from framefleet.plugins.watch.status import driver_of
from tests.commands import command
from tests.jobs import (
    finish,
    job_values,
    prompt_rows,
    records_of,
    start_render,
    wait_until,
    write_job,
    write_table,
)

# From when the last clip of the table is there: until the job ends, and while it does.
MOMENTS_S = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 1.8)
NUM_ROWS = 3  # of the table; the first of them is rendered before, so that there is an output


def tags_of(output: Path) -> list[str]:
    return sorted(record["tag"] for record in records_of(output))


def test_rows_that_are_added_until_the_end_are_rendered_or_their_adder_hears_that_they_are_not(
    tmp_path: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = ["as it begins", *(f"after {moment_s} s" for moment_s in MOMENTS_S), "as it has ended"]
    rows = prompt_rows(NUM_ROWS + len(later), num_inference_steps=1)
    table = write_table(tmp_path / "t.parquet", rows[:1])
    fleet = {"workers": 1, "gpus_per_worker": 0, "address": ray_cluster}
    values, output = job_values(table, tmp_path / "out", fleet=fleet), tmp_path / "out"
    job, store = write_job(tmp_path / "job.yaml", values), Store(str(output))
    finish(start_render(job))
    write_table(table, rows[:NUM_ROWS])

    gates = [threading.Event() for _ in later]
    is_at_gate, local, upload = threading.Semaphore(0), threading.local(), Store.upload

    def upload_at_gate(store: Store, path: str, source: Path) -> None:
        if path.startswith("tables/"):
            is_at_gate.release()
            assert local.gate.wait(240)
        upload(store, path, source)

    def add(number: int) -> Addition:
        local.gate = gates[number]
        return framefleet.add(values, rows[NUM_ROWS + number : NUM_ROWS + number + 1], wait_s=240)

    monkeypatch.setattr(Store, "upload", upload_at_gate)
    with ThreadPoolExecutor(len(gates)) as people:
        adding = [people.submit(add, number) for number in range(len(gates))]
        for _ in gates:
            assert is_at_gate.acquire(timeout=120)
        process = start_render(job)
        wait_until(lambda: process.poll() is not None or driver_of(store).is_at_work)
        gates[0].set()
        wait_until(lambda: process.poll() is not None or len(store.list("clips")) >= NUM_ROWS)
        began = time.monotonic()
        for gate, moment_s in zip(gates[1:], MOMENTS_S, strict=False):
            time.sleep(max(0.0, began + moment_s - time.monotonic()))
            gate.set()
        finish(process)
        gates[-1].set()
        answers = [one.result().rendered_by == "running" for one in adding]
    tags = [row["tag"] for row in rows[NUM_ROWS:]]
    assert dict(zip(later, answers, strict=True)) == {
        moment: tag in tags_of(output) for moment, tag in zip(later, tags, strict=True)
    }
    assert answers[0] is True and answers[-1] is False

    monkeypatch.undo()
    late = command("add", job, write_table(tmp_path / "late.parquet", rows[-1:]))
    assert late.stdout.startswith("1 row added before"), late.output
    finish(start_render(job))
    assert tags_of(output) == sorted(row["tag"] for row in rows), "each once"
