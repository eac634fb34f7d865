"""A job with `post:`: each row has two files; both are verified, repaired and exported."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.parquet as pq

from framefleet.pipeline.outputs.media.media import decode
from tests.commands import command
from tests.jobs import finish, job_values, prompt_rows, records_of, start_render, write_job, write_table
from tests.warm.process import start


def test_each_row_has_a_second_file_which_is_repaired_and_exported(ray_cluster: str, tmp_path: Path) -> None:
    table, output = write_table(tmp_path / "t.parquet", prompt_rows(3, height=32, width=48)), tmp_path / "out"
    values = job_values(table, output, address=ray_cluster, post=[{"interpolate": 2}])
    job = write_job(tmp_path / "job.yaml", values)
    finish(start_render(job))
    records = records_of(output)
    for record in records:
        content = (output / record["derived_path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record["derived_sha256"]
        assert len(decode(content)) == record["derived_num_frames"] == 2 * record["num_frames"]
        assert record["derived_fps"] == 2 * record["fps"] and "minterpolate" in record["post"]
    (output / records[0]["derived_path"]).unlink()
    assert command("verify", output, "--files").exit_code == 1
    finish(start_render(job))  # what is committed is not looked at
    assert "files that are gone, but have a record: 1" in command("repair", output, "--dry-run").output
    finish(start("-m", "framefleet.jobs.cli", "repair", job))
    repaired = {record["row_id"]: record["derived_sha256"] for record in records_of(output)}
    assert repaired == {record["row_id"]: record["derived_sha256"] for record in records}
    assert command("verify", output, "--files").exit_code == 0
    write_job(job, {**values, "post": [{"interpolate": 3}]})
    refused = command("plan", job)
    assert refused.exit_code == 2 and "post" in refused.output
    exported = command("export", output, tmp_path / "to", "--format", "parquet", "--file", "derived")
    assert exported.exit_code == 0 and len(pq.read_table(tmp_path / "to")) == 3
