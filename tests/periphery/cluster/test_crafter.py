"""A pipeline of our own on a fleet: two workers, a mixed table, the frames of plain calls."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import framefleet
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.spec import inspect_model
from tests.crafter import MOTION, NUM_ROWS, crafter, mixed_rows, plain_digest
from tests.jobs import records_of, write_table


@pytest.mark.usefixtures("both_work")
def test_two_workers_render_the_frames_of_plain_calls(tmp_path: Path, ray_cluster: str) -> None:
    rows = mixed_rows(MOTION, tmp_path)
    columns = {name for row in rows for name in row.arguments}
    cells = [{name: row.arguments.get(name) for name in columns} | {"seed": row.seed} for row in rows]
    job = {
        "table": str(write_table(tmp_path / "prompts.parquet", cells)),
        "output": str(tmp_path / "out"),
        "model": {"path": str(crafter(MOTION)), "dtype": "fp32"},
        "batching": {"max_rows": 2, "min_gain": 0},
        "inputs": {"fit": "stretch"},  # as plain calls do
        "fleet": {"workers": 2, "gpus_per_worker": 0, "address": ray_cluster},
    }
    assert framefleet.render(job).done == NUM_ROWS
    records = records_of(tmp_path / "out")
    assert {record["worker"] for record in records} == {"worker-0", "worker-1"}
    assert max(record["batch_size"] for record in records) > 1.2
    pipeline_class = class_named(inspect_model(crafter(MOTION)).class_name)
    pipe = pipeline_class.from_pretrained(crafter(MOTION), dtype=torch.float32)
    found = {record["seed"]: record["frames_sha256"] for record in records}
    assert found == {row.seed: plain_digest(pipe, row, tmp_path) for row in rows}
