"""The central promise on a fleet: a shuffled table, the frames of plain diffusers calls.

Of one model of each kind; tests/periphery/models/test_conformance.py goes through all of them in one process.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import command
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table
from tests.mixed import DTYPES, mixed_table
from tools.conformance.batches import rendered_by_fleet
from tools.conformance.finding import compare
from tools.conformance.plain import plain_calls


@pytest.mark.promise("Its frames equal those of", "It does not matter which rows shared a batch")
@pytest.mark.usefixtures("both_work")
@pytest.mark.parametrize(("name", "dtype"), [("wan", "bf16"), ("cogvideox_i2v", "fp32"), ("sd", "bf16")])
def test_a_fleet_renders_the_frames_of_plain_diffusers_calls(
    name: str, dtype: str, tmp_path: Path, ray_cluster: str
) -> None:
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
