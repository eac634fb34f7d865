"""The central promise on a fleet: a shuffled table, the frames of plain diffusers calls.

Of one model of each kind; tests/models/test_conformance.py goes through all of them in one process.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.company import rendered_by_fleet
from tests.conformance.finding import compare
from tests.conformance.plain import plain_calls
from tests.jobs import records_of
from tests.mixed import DTYPES, mixed_table


@pytest.mark.parametrize(("name", "dtype"), [("wan", "bf16"), ("cogvideox_i2v", "fp32"), ("sd", "bf16")])
def test_a_fleet_renders_the_frames_of_plain_diffusers_calls(
    name: str, dtype: str, tmp_path: Path, ray_cluster: str
) -> None:
    rows = mixed_table(name, tmp_path)
    found = rendered_by_fleet(name, dtype, rows, tmp_path, address=ray_cluster)
    plain = plain_calls(name, DTYPES[dtype], rows, tmp_path)
    now = compare(name, {row["seed"]: made for row, made in zip(rows, plain, strict=True)}, found)
    assert (now.equal, now.why) == (len(rows), "")
    assert now.mean_batch > 1
    assert {record["worker"] for record in records_of(tmp_path / "out")} == {"worker-0", "worker-1"}
