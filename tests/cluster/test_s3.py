"""The store, a job's images, a whole job and its export on a real S3 server process."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow.dataset as ds
import pyarrow.fs
import pytest
import s3fs

import framefleet
from framefleet import Inputs, Progress, Store, StoreConflict
from framefleet.pipeline.errors import InputError, Refused
from framefleet.pipeline.rows.inputs.pictures import Described
from framefleet.pipeline.rows.inputs.survey import InputIndex
from tests.commands import command
from tests.creates import losers_of_a_race
from tests.faulty_s3 import Fault, faulty_s3
from tests.jobs import all_columns, job_values, prompt_rows, write_job, write_table
from tests.media_files import image_file
from tests.read_elsewhere import read_into
from tests.servers import S3Server
from tests.small_output import rendered


@pytest.fixture
def store(s3_server: S3Server) -> Store:
    return Store(f"{s3_server.url}/run 7", s3_server.storage_options)


def test_what_is_written_is_read_replaced_listed_and_deleted(store: Store) -> None:
    store.write("clips/ab/one.mp4", b"old")
    store.write("clips/ab/one.mp4", b"new")
    store.write("clips2/two.mp4", b"2")
    assert store.read("clips/ab/one.mp4") == b"new"
    assert store.list("clips") == ["clips/ab/one.mp4"]
    assert store.list("records") == []
    assert store.exists("clips/ab/one.mp4")
    assert not store.exists("clips/ab")
    store.delete("clips/ab/one.mp4")
    store.delete("clips/ab/one.mp4")
    assert not store.exists("clips/ab/one.mp4")
    with pytest.raises(FileNotFoundError):
        store.read("clips/ab/one.mp4")


def test_names_that_mean_something_in_urls_are_kept(store: Store) -> None:
    for name in ("a#b", "a?b", "a%20b", "a b", "a[1]*", "猫"):
        store.write(f"clips/{name}", name.encode())
    assert sorted(store.list("clips")) == store.list("clips")
    assert [store.read(path).decode() for path in store.list("clips")] == [
        path.removeprefix("clips/") for path in store.list("clips")
    ]


def test_of_many_creates_at_once_one_wins(store: Store) -> None:
    conflicts = losers_of_a_race(store, "driver.lock", num_creators=8)
    assert len(conflicts) == 7
    assert int(store.read("driver.lock")) not in conflicts


@pytest.mark.parametrize(
    ("kind", "is_bare"), [("unconditional", False), ("unconditional", True), ("none", True)]
)
def test_a_second_object_is_refused_without_conditional_writes_and_without_a_reason(
    kind: str, is_bare: bool, s3_server: S3Server
) -> None:
    with faulty_s3(s3_server.endpoint, kind=kind, is_bare=is_bare) as proxy:
        store = Store(s3_server.url, {**s3_server.storage_options, "endpoint_url": proxy.endpoint})
        store.create("driver.lock", b"mine")
        with pytest.raises(StoreConflict):
            store.create("driver.lock", b"another's")


def test_many_are_deleted_at_once_and_absent_ones_are_fine(store: Store) -> None:
    paths = [f"pending/{name}.json" for name in ("a", "b c", "[d]*")]
    for path in paths:
        store.write(path, b"{}")
    store.delete_many(["pending/gone.json", *paths[1:]])
    assert store.list("pending") == paths[:1]


def test_another_process_sees_a_change_at_once(store: Store) -> None:
    assert store.list("clips") == []
    pickle.loads(pickle.dumps(store)).write("clips/one.mp4", b"1")
    assert store.list("clips") == ["clips/one.mp4"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_store_in_use_works_in_a_child_process(store: Store, method: Literal["fork", "spawn"]) -> None:
    store.write("job.json", b"{}")
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child: Any = context.Process(target=read_into, args=(store, theirs))  # type: ignore[attr-defined]
    child.start()
    assert ours.poll(240)
    assert ours.recv() == b"{}"
    child.join(120)
    assert child.exitcode == 0


def test_the_users_options_are_left_as_they_were(s3_server: S3Server) -> None:
    options = {**s3_server.storage_options, "config_kwargs": {"connect_timeout": 5}}
    before = pickle.dumps(options)
    Store(s3_server.url, options).write("job.json", b"{}")
    assert pickle.dumps(options) == before


@pytest.mark.parametrize("format", ["webdataset", "parquet", "hf"])
def test_from_bucket_to_bucket_an_export_has_the_bytes_of_one_to_a_folder(
    format: str, s3_server: S3Server, tmp_path: Path
) -> None:
    options, source, place = s3_server.storage_options, f"{s3_server.url}/out", f"{s3_server.url}/{format}"
    rendered(Store(source, options), 5)
    sets = [f"--set=storage_options.{name}={value}" for name, value in options.items()]
    result = command("export", source, place, "--format", format, "--shard-rows", "2", *sets, exits=0)
    assert result.stdout.strip() == place
    assert options["secret"] not in result.output
    framefleet.export(
        source, str(tmp_path / "to"), format=format, storage_options=options, to_options={}, shard_rows=2
    )
    bucket, folder = Store(place, options), Store(str(tmp_path / "to"))
    assert bucket.list("") == folder.list("")
    assert all(bucket.read(path) == folder.read(path) for path in folder.list(""))


def test_a_table_reads_below_its_roots_in_a_bucket_and_nowhere_else(s3_server: S3Server) -> None:
    url = s3_server.url
    store = Store(url, s3_server.storage_options)
    for path in ("tables/images/a b?c#d.png", "images/a.png", "images-too/a.png"):
        store.write(path, image_file())
    store.write("images/empty.png", b"")
    store.write("images/page.png", b"<html>")
    inputs = Inputs([f"{url}/tables", f"{url}/images"], s3_server.storage_options)
    with closing(InputIndex(inputs)) as index:
        for uri in ("images/a b?c#d.png", f"{url}/images/a.png", "../images/a.png"):
            assert isinstance(index.find(uri, "image"), Described)
        refused = {
            "none.png": "it does not exist",
            f"{url}/images/empty.png": "it is an empty file",
            f"{url}/images/page.png": "it is a web page, not an image",
            f"{url}/images-too/a.png": "it lies outside of inputs.roots",
            "../images-too/a.png": "it lies outside of inputs.roots",
            "s3://no-such-bucket/a.png": "it lies outside of inputs.roots",
        }
        for uri, reason in refused.items():
            answer = index.find(uri, "image")
            assert isinstance(answer, Refused) and answer.reason == reason and answer.fix
    with pytest.raises(InputError, match="does not exist"):
        Inputs(["s3://no-such-bucket/x"], s3_server.storage_options).read("a.png")


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
