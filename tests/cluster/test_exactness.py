"""The central promise on a fleet: a shuffled table, the frames of plain diffusers calls.

Of one pipeline of each kind; of every pipeline, without Ray, by `tests/models/test_exactness.py`.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

import framefleet
from tests.jobs import records_of
from tests.mixed import DTYPES, MANY, mixed_job, mixed_table, plain_digests


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("name", MANY)
def test_a_fleet_renders_the_frames_of_plain_diffusers_calls(
    name: str, dtype: str, tmp_path: Path, ray_cluster: str
) -> None:
    rows = mixed_table(name, tmp_path)
    job = mixed_job(name, dtype, rows, tmp_path, address=ray_cluster)
    assert framefleet.render(job).done == len(rows)
    records = records_of(tmp_path / "out")
    assert {record["worker"] for record in records} == {"worker-0", "worker-1"}
    assert mean(record["batch_size"] for record in records) > 1.2
    found = {record["seed"]: record["frames_sha256"] for record in records}
    seeds = [row["seed"] for row in rows]
    assert found == dict(zip(seeds, plain_digests(name, DTYPES[dtype], rows, tmp_path), strict=True))
