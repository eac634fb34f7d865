"""Models that do not pad their prompts, on a fleet."""

from __future__ import annotations

import logging
from pathlib import Path
from statistics import mean

import pytest

import framefleet
from framefleet import load_model
from tests.jobs import job_values, records_of, write_table
from tests.tiny import tiny
from tests.unequal_prompts import plain_digest, requests_of, unequal_rows


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "takes_lists"), [pytest.param("z_image", True, marks=pytest.mark.long), ("qwen_image", False)]
)
def test_two_workers_share_forwards_of_unequal_prompts(
    name: str, takes_lists: bool, tmp_path: Path, ray_cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of equal ones alone, which the driver brings together, where a network does not take rows as lists."""
    rows = unequal_rows(name, 480)  # on a busy machine, prompts are counted only after half of them
    job = job_values(
        write_table(tmp_path / "prompts.parquet", rows),
        tmp_path / "out",
        model=name,
        batching={"max_rows": 4, "min_gain": 0},
        fleet={"workers": 2, "gpus_per_worker": 0, "address": ray_cluster},
    )
    job["defaults"] = {}
    job["model"] = {"path": str(tiny(name)), "dtype": "fp32"}
    with caplog.at_level(logging.INFO, "framefleet"):
        assert framefleet.render(job).done == len(rows)
    records = records_of(tmp_path / "out")
    assert {record["worker"] for record in records} == {"worker-0", "worker-1"}
    assert ("batching rows with equal prompt lengths" in caplog.text) is not takes_lists
    assert mean(record["batch_size"] for record in records) > 1.5  # of Qwen 2.3, and 2.1 in no order
    found = {record["seed"]: record["frames_sha256"] for record in records}
    model = load_model(tiny(name), dtype="fp32")
    model.pipe.set_progress_bar_config(disable=True)
    for request in requests_of(rows)[::32]:
        assert found[request.seed] == plain_digest(model, request)
