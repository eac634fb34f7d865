"""Two ranks of a worker in a cluster: one dies, stops or hangs at any stage; no row is lost or made twice."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet import Store
from tests.jobs import all_columns, digests_by_tag, job_values, prompt_rows, write_table

SIZE = {"height": 64, "width": 64, "num_frames": 5}


def rank_processes() -> list[str]:
    """Return the command lines of ranks that compute for workers of this process's cluster."""
    commands, own = [], os.environ.get("PYTEST_XDIST_WORKER", "")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode()
            variables = (path.parent / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        is_own = not own or f"PYTEST_XDIST_WORKER={own}".encode() in variables
        if is_own and "framefleet.plugins.placement.rank" in command:
            commands.append(f"{path.parent.name} {command}")
    return commands


def left_memory() -> set[str]:
    """Return torch's shared memory, torch_<pid>_..., whose process is gone."""
    names = [name for name in os.listdir("/dev/shm") if name.startswith("torch_")]
    return {name for name in names if not Path("/proc", name.split("_")[1]).exists()}


def rendered(folder: Path, name: str, address: str, faults: list[str], **model: Any) -> Path:
    rows = prompt_rows(len(faults), **SIZE)
    for row, fault in zip(rows, faults, strict=True):
        row |= {"guidance_scale": 1.0} | ({"fault": fault} if model else {})
    values = job_values(write_table(folder / f"{name}.parquet", rows), folder / name, address=address)
    values |= {
        "model": {"path": values["model"], **model},
        "fleet": {"workers": 1, "gpus_per_worker": 0, "address": address},
        # Longer than ranks take to start beside other tests, which would count as a loss too.
        "retries": {"stall_s": 45, "faults": 50, "worker_deaths": 10},
        "audit": {"every": 0},
    }
    if model:
        values |= {"recipe": "tests.rank_faults:faulty"}
        values["defaults"] |= {"faults": str(folder / "done")}
    summary = framefleet.render(values)
    assert (summary.done, summary.failed) == (len(rows), 0)
    return folder / name


@pytest.mark.timeout(1200)
def test_a_rank_that_dies_or_stops_loses_and_doubles_nothing(tmp_path: Path, ray_cluster: str) -> None:
    faults = ["0 kill encode", "1 kill step", "1 stop decode", ""]
    before = left_memory()
    (tmp_path / "done").mkdir()
    placed = rendered(
        tmp_path, "placed", ray_cluster, faults, placement={"type": "ulysses", "devices": 2}, device="cpu"
    )
    harmed = {path.name for path in (tmp_path / "done").iterdir()}
    assert harmed == {fault.replace(" ", "-") for fault in faults if fault}, "each was tried"
    records = all_columns(Store(str(placed)), "records").to_pylist()
    assert sorted(row["row_indices"][0] for row in records) == [*range(len(faults))]
    deadline = time.monotonic() + 60  # workers end a moment after their job
    while (rank_processes() or not left_memory() <= before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not rank_processes()
    assert left_memory() <= before
    assert all('"placement":"ulysses"' in row["environment"].replace(" ", "") for row in records)
    alone = rendered(tmp_path, "alone", ray_cluster, [""] * len(faults))
    frames = {tag: sha for tag, (sha, _) in digests_by_tag(placed).items()}
    assert frames == {tag: sha for tag, (sha, _) in digests_by_tag(alone).items()}
