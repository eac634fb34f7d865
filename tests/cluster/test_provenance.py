"""What files say of their rows: marks, a signature whose key nothing tells of, a text that makes it again."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands import command
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table
from tests.model_files import flip_a_byte
from tools.benchmarks.marks import round_trip


def test_old_clips_are_rows_and_each_file_is_written_again_as_its_record_says(
    tmp_path: Path, ray_cluster: str
) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(2))
    old, again = tmp_path / "old", tmp_path / "new"
    job = write_job(tmp_path / "job.yaml", job_values(table, old, address=ray_cluster))
    assert command("render", job, "--limit", "1").exit_code == 0
    assert command("render", job, "--set", "media.embed=none").exit_code == 0
    records = sorted(records_of(old), key=lambda record: record["row_indices"])
    assert [record["embed"] for record in records] == ["full", "none"]
    values = job_values(old / "clips", again, address=ray_cluster) | {"read_metadata": True}
    job_again = write_job(tmp_path / "again.yaml", values)
    refused = command("plan", job_again)
    assert refused.exit_code == 2 and "1 of 2 files" in refused.stderr
    assert "(" + records[1]["path"].removeprefix("clips/") + ")" in refused.stderr
    for line in ("1 row rendered in", "nothing to do"):
        ended = command("render", job_again, "--set", "on_invalid=skip")
        assert (ended.exit_code, line in ended.stderr) == (0, True), ended.stderr
    (record,) = records_of(again)
    assert (record["row_id"], record["media_sha256"]) == (records[0]["row_id"], records[0]["media_sha256"])
    for record in records:
        flip_a_byte(old / record["path"], 999)
    rows = [json.loads(line) for line in command("verify", old, "--fleet", job, "--json").stdout.splitlines()]
    # Their bytes are certain: files of other bytes would leave it in doubt.
    assert [(row["verdict"], row["doubt"]) for row in rows[:2]] == [("file damaged", None)] * 2


def test_edited_clips_are_traced_to_their_rows(ray_cluster: str) -> None:
    *_, total = round_trip(6, ray_cluster)
    names = ("rows", "found", "wrong", "stored ones signed and stamped")
    assert [total[name] for name in names] == [6, 6, 0, 6]
