"""A modular pipeline on a fleet: the rows of two workers are those of plain modular calls."""

from __future__ import annotations

import json
from pathlib import Path

from framefleet import Request
from framefleet.jobs.keep.replay.replay import replay
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from tests.commands import command
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table
from tests.modular import plain, plain_frames
from tests.tiny import tiny


def test_a_fleet_renders_the_rows_of_plain_modular_calls(tmp_path: Path, ray_cluster: str) -> None:
    rows = [row | {"guidance_scale": 2.0 + row["seed"] % 3} for row in prompt_rows(8)]
    table = write_table(tmp_path / "t.parquet", rows)
    values = job_values(table, tmp_path / "out", model="wan_modular", address=ray_cluster)
    ended = command("render", write_job(tmp_path / "job.yaml", values))
    assert "8 rows rendered in" in ended.stderr, ended.stderr
    records, pipe = records_of(tmp_path / "out"), plain(tiny("wan_modular"))
    for record in records:
        arguments = json.loads(record["arguments"])
        del arguments["guidance_rescale"]  # 0, as in the guider that is there
        row = Request(arguments=arguments, seed=record["seed"])
        assert frames_sha256(plain_frames(pipe, row)) == record["frames_sha256"]
    assert sum(record["batch_size"] for record in records) / len(records) > 1
    assert replay(str(tmp_path / "out"), records[0]["row_id"]).is_equal
