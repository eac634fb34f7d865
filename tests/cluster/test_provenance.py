"""A job that signs its clips: what is told of its key, and that its rows can be rendered again."""

from __future__ import annotations

import io
import json
from pathlib import Path

import c2pa

from framefleet.plugins.keep.replay.replay import replay
from tests.certificates import issue
from tests.commands import command
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table


def test_a_job_signs_its_clips_and_tells_nothing_of_the_key(tmp_path: Path, ray_cluster: str) -> None:
    (keys := tmp_path / "keys").mkdir()
    certificate, key = issue(keys)
    signing = {"certificate": str(certificate), "private_key": str(key)}
    table = write_table(tmp_path / "t.parquet", prompt_rows(3))
    values = job_values(table, tmp_path / "out", address=ray_cluster, marks={"sign": signing})
    assert "3 rows rendered in" in command("render", write_job(tmp_path / "job.yaml", values)).stderr
    record = records_of(tmp_path / "out")[0]
    with c2pa.Reader("video/mp4", io.BytesIO(Path(record["uri"]).read_bytes())) as reader:
        assert record["row_id"] in reader.json()
    told = json.loads((tmp_path / "out" / "job.json").read_text())["job"]["marks"]["sign"]
    assert list(told) == ["certificate_sha256"]
    secret = key.read_bytes().splitlines()[1]
    assert not [
        path for path in (tmp_path / "out").rglob("*") if path.is_file() and secret in path.read_bytes()
    ]
    assert replay(str(tmp_path / "out"), record["row_id"]).is_equal
