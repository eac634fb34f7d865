"""The central promise on a fleet: a shuffled table of every family, the frames of plain diffusers calls."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

import framefleet
from tests.jobs import job_values, records_of, write_table
from tests.mixed import CHOICES, DTYPES, MANY, mixed_table, plain_digests
from tests.tiny import tiny

# Their prompts come once for each frame, which rows that differ in them cannot share.
ONE_BY_ONE = {"animatediff"}


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("name", list(CHOICES))
def test_a_fleet_renders_the_frames_of_plain_diffusers_calls(
    name: str, dtype: str, tmp_path: Path, ray_cluster: str
) -> None:
    rows = mixed_table(name, tmp_path)
    workers = 2 if name in MANY else 1  # one starts sooner than two
    job = job_values(
        write_table(tmp_path / "prompts.parquet", rows),
        tmp_path / "out",
        model=name,
        batching={"max_rows": 8 if name == "wan" else 4, "min_gain": 0},  # each size is probed
        fleet={"workers": workers, "gpus_per_worker": 0, "address": ray_cluster},
    )
    job["defaults"] = {}
    job["model"] = {"path": str(tiny(name)), "dtype": dtype}
    assert framefleet.render(job).done == len(rows)
    records = records_of(tmp_path / "out")
    assert {record["worker"] for record in records} == {f"worker-{i}" for i in range(workers)}
    assert (mean(record["batch_size"] for record in records) > 1.2) == (name not in ONE_BY_ONE)
    found = {record["seed"]: record["frames_sha256"] for record in records}
    seeds = [row["seed"] for row in rows]
    assert found == dict(zip(seeds, plain_digests(name, DTYPES[dtype], rows, tmp_path), strict=True))
