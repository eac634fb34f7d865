"""A whole job on a real S3 server process: records and clips are found there by others too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import duckdb
import pyarrow.dataset as ds
import pyarrow.fs
import pytest
import s3fs

import framefleet
from framefleet import Progress, Store
from tests.commands import command
from tests.faulty_s3 import Fault, faulty_s3
from tests.jobs import all_columns, job_values, prompt_rows, write_job, write_table
from tests.servers import S3Server


@pytest.mark.promise("Every distinct row ends up with exactly one record")
def test_a_job_on_s3_is_read_back_by_pyarrow_and_duckdb(
    s3_server: S3Server, ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"{s3_server.url}/run 7"
    table = write_table(tmp_path / "t.parquet", prompt_rows(4))
    values = job_values(table, output, storage_options=s3_server.storage_options, address=ray_cluster)
    assert framefleet.render(values).done == 4

    files = s3fs.S3FileSystem(**s3_server.storage_options)
    arrow = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(files))
    place = f"{output}/records".removeprefix("s3://")
    records = ds.dataset(place, filesystem=arrow, format="parquet").to_table().to_pylist()
    with duckdb.connect() as database:
        database.register_filesystem(files)
        rows = database.sql(
            f"SELECT uri, media_sha256 FROM '{output}/records/*.parquet' ORDER BY uri"
        ).fetchall()
    assert rows == sorted((record["uri"], record["media_sha256"]) for record in records)
    assert len(rows) == 4
    for uri, digest in rows:
        assert uri.startswith(f"{output}/clips/")
        assert hashlib.sha256(files.cat_file(uri)).hexdigest() == digest

    claim = Store(output, s3_server.storage_options).read("job.json")
    assert s3_server.storage_options["secret"].encode() not in claim
    assert json.loads(claim)["job"]["output"] == output

    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    job = write_job(tmp_path / "job.yaml", values)
    assert "nothing to do" in command("render", job).stderr
    command("replay", output, records[0]["row_id"], exits=0)


@pytest.mark.promise("Nothing is lost, and nothing is done twice")
def test_a_job_rides_out_a_server_that_refuses_for_a_while(
    s3_server: S3Server, ray_cluster: str, tmp_path: Path
) -> None:
    output = f"{s3_server.url}/run 7"
    table = write_table(tmp_path / "t.parquet", prompt_rows(12))
    with faulty_s3(s3_server.endpoint) as proxy:
        options = {**s3_server.storage_options, "endpoint_url": proxy.endpoint}
        values = job_values(table, output, storage_options=options, address=ray_cluster)
        outages = []

        def refuse_once(progress: Progress) -> None:
            if progress.done and not outages:
                outages.append(progress.done)
                proxy.goes_wrong(Fault(kind="refuse", seconds=15))

        summary = framefleet.render(values, on_progress=refuse_once)
    assert (summary.done, summary.failed) == (12, 0)
    assert outages and outages[0] < 12
    store = Store(output, s3_server.storage_options)
    records = all_columns(store, "records").to_pylist()
    assert sorted(row["tag"] for row in records) == sorted(f"row {i}" for i in range(12))
    assert {row["attempt"] for row in records} == {1}
    for row in records:
        clip = store.read(row["uri"].removeprefix(f"{output}/"))
        assert hashlib.sha256(clip).hexdigest() == row["media_sha256"]
