"""A real S3 server behind a proxy that goes wrong: what the store rides out, tells, and never does."""

from __future__ import annotations

import hashlib
import logging
import pickle
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from framefleet import Store, StoreConflict, StoreError, TableError
from framefleet.pipeline.outputs.stores import object_store, retries
from framefleet.pipeline.rows.tables.table import open_table
from tests.faulty_s3 import CHECKSUMS_REFUSED, Fault, FaultyS3, faulty_s3
from tests.jobs import wait_until
from tests.servers import KEY, SECRET, S3Server

SMALL_PARTS = {"default_block_size": 1 << 18}  # in which s3fs reads a file; its own would take all at once
FAST = {"config_kwargs": {"read_timeout": 20, "connect_timeout": 20}}


@contextmanager
def behind(
    server: S3Server, *, outage_s: float = 60, **fault: object
) -> Iterator[tuple[Store, FaultyS3, Store]]:
    """Yield a store behind a faulty proxy, the proxy, and the same store without it."""
    with faulty_s3(server.endpoint) as proxy:
        store = Store(
            f"{server.url}/run 7",
            {**server.storage_options, "endpoint_url": proxy.endpoint, **FAST},
            outage_s=outage_s,
        )
        store.exists("x")  # it has answered
        proxy.goes_wrong(Fault(**fault))  # type: ignore[arg-type]  # by their names
        yield store, proxy, Store(f"{server.url}/run 7", server.storage_options)


@pytest.mark.parametrize("kind", ["refuse", "hang", "reset", "503", "500"])
def test_every_request_rides_out_an_outage(kind: str, s3_server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"model")
    with behind(s3_server) as (store, proxy, direct):
        direct.write("there", b"1")
        calls: dict[str, Callable[[], object]] = {
            "read": lambda: store.read("there"),
            "download": lambda: store.download("there", tmp_path / "there"),
            "write": lambda: store.write("written", b"2"),
            "create": lambda: store.create("created", b"3"),
            "upload": lambda: store.upload("uploaded", tmp_path / "model.bin"),
            "exists": lambda: store.exists("there"),
            "list": lambda: store.list(""),
            "stat": lambda: store.stat("there"),
            "delete": lambda: store.delete("absent"),
        }
        with ThreadPoolExecutor(len(calls)) as people:
            proxy.goes_wrong(Fault(kind=kind))
            asked = {name: people.submit(call) for name, call in calls.items()}
            time.sleep(1)
            assert not any(one.done() for one in asked.values())
            proxy.goes_wrong(Fault())
            ended = {name: one.result(120) for name, one in asked.items()}
        assert (ended["read"], ended["exists"]) == (b"1", True)
        assert {name: direct.read(name) for name in ("written", "created", "uploaded")} == {
            "written": b"2",
            "created": b"3",
            "uploaded": b"model",
        }


@pytest.mark.parametrize(
    ("name", "limit_s"),
    [("table.csv", 60), ("table.parquet", 60), ("table.csv", 0.5)],
)
def test_a_table_is_read_on_after_an_outage_within_the_limit(
    name: str, limit_s: float, s3_server: S3Server, tmp_path: Path
) -> None:
    table = pa.table({"prompt": [f"{number:0200}" for number in range(50_000)]})
    write = csv.write_csv if name.endswith("csv") else pq.write_table
    write(table, tmp_path / name)
    with behind(s3_server) as (_, proxy, direct):
        direct.upload(name, tmp_path / name)
        options = {**s3_server.storage_options, "endpoint_url": proxy.endpoint, **FAST, **SMALL_PARTS}
        batches = open_table(f"{s3_server.url}/run 7/{name}", options, outage_s=limit_s).batches()
        read = [next(batches)[1].num_rows]
        proxy.goes_wrong(Fault(kind="refuse", seconds=1 if limit_s > 1 else 0))
        if limit_s > 1:
            assert sum(read + [batch.num_rows for _, batch in batches]) == 50_000
            return
        with pytest.raises(StoreError, match=r"could not continue to read s3://.*table\.csv") as caught:
            list(batches)
        assert caught.value.kind == "unreachable"


def test_of_one_upload_in_three_that_fails_none_is_lost_and_none_is_doubled(s3_server: S3Server) -> None:
    with behind(s3_server) as (store, proxy, direct):
        for kind in ("lost", "503", "denied", "reset", "damaged", "halved"):
            proxy.goes_wrong(Fault(kind=kind, share=0.33, methods=frozenset({"PUT"})))
            for number in range(4):
                store.create(f"clips/{kind}/{number}", f"{kind} {number}".encode())
        assert proxy.num_faults > 0
        proxy.goes_wrong(Fault())
        stored = {path: direct.read(path).decode() for path in direct.list("clips")}
        assert stored == {path: " ".join(path.split("/")[1:]) for path in stored}
        assert len(stored) == 24


def test_the_log_says_when_an_outage_begins_and_ends_and_not_more(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retries, "TOLD_AFTER_S", 0.3)
    with behind(s3_server, kind="503") as (store, proxy, _), caplog.at_level(logging.WARNING):
        threads = [threading.Thread(target=store.write, args=[f"clips/{i}", b"x"]) for i in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: any(one.name == retries.__name__ for one in caplog.records))
        time.sleep(1)  # in which no more is said
        proxy.goes_wrong(Fault())
        for thread in threads:
            thread.join(60)
    lines = [record.getMessage() for record in caplog.records if record.name == retries.__name__]
    assert len(lines) == 2, lines
    assert "has not answered for" in lines[0]
    assert f"{s3_server.url}/run 7" in lines[0]
    assert "answers again" in lines[1]


def test_a_store_that_takes_requests_and_is_silent_is_given_up_when_the_outage_is_over(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_LEAST_SILENCE_S", 0.5)
    with faulty_s3(s3_server.endpoint) as proxy:
        options = {**s3_server.storage_options, "endpoint_url": proxy.endpoint}
        store = Store(f"{s3_server.url}/run 7", options, outage_s=4)
        store.exists("x")
        proxy.goes_wrong(Fault(kind="hang"))
        started = time.monotonic()
        with pytest.raises(StoreError, match="ReadTimeoutError"):
            store.write("clips/one.mp4", b"x")
        assert 4 <= time.monotonic() - started < 55


def test_https_to_a_server_of_http_is_a_mistake_that_is_told_at_once(s3_server: S3Server) -> None:
    endpoint = s3_server.endpoint.replace("http://", "https://")
    store = Store(s3_server.url, {**s3_server.storage_options, "endpoint_url": endpoint})
    started = time.monotonic()
    with pytest.raises(StoreError, match="this endpoint speaks http, not https") as caught:
        store.read("job.json")
    assert time.monotonic() - started < 15 and caught.value.exit_code == 2


def test_the_limit_travels_with_the_store(s3_server: S3Server) -> None:
    with behind(s3_server, outage_s=0.5, kind="503") as (store, _, _):
        elsewhere = pickle.loads(pickle.dumps(store))
        with pytest.raises(StoreError) as caught:
            elsewhere.read("job.json")
        assert caught.value.kind == "unreachable"


def test_rotated_credentials_are_picked_up(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(key: str) -> None:
        text = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}\n"
        (tmp_path / "credentials").write_text(text)

    keep("first")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with faulty_s3(s3_server.endpoint, kind="unknown-key", keys=frozenset({"first"})) as proxy:
        store = Store(s3_server.url, {"endpoint_url": proxy.endpoint})
        store.write("job.json", b"1")
        proxy.goes_wrong(Fault(kind="unknown-key", keys=frozenset({"second"})))
        threading.Timer(0.5, keep, ["second"]).start()  # the one who renews them is a little late
        store.write("job.json", b"2")
        assert store.read("job.json") == b"2"


@pytest.mark.parametrize("kind", ["denied", "expired"])
def test_credentials_that_stay_refused_are_an_error_that_says_so(
    kind: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_REFUSALS", 2)
    with behind(s3_server, kind=kind) as (store, proxy, direct):
        with pytest.raises(StoreError, match="could not write") as caught:
            store.write("job.json", b"1")
        assert (caught.value.kind, caught.value.may_pass) == ("refused", False)
        assert "credentials" in caught.value.fix
        assert proxy.num_faults == 3
        assert direct.list("") == []


def test_a_bucket_that_was_removed_is_missed_by_every_call(s3_server: S3Server) -> None:
    store = Store("s3://no-such-bucket/run", s3_server.storage_options)
    for call in (
        lambda: store.read("job.json"),
        lambda: store.exists("job.json"),
        lambda: store.list("records"),
        lambda: store.create("job.json", b"1"),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.kind == "missing"
        assert "bucket" in caught.value.fix


@pytest.mark.parametrize("kind", ["damaged", "halved"])
def test_what_arrives_otherwise_than_it_was_sent_is_sent_again(
    kind: str, s3_server: S3Server, tmp_path: Path
) -> None:
    with behind(s3_server, kind=kind, methods=frozenset({"PUT"}), count=1) as (store, proxy, direct):
        store.create("clips/one.mp4", b"every byte of a clip")
        assert proxy.num_faults == 1
        assert direct.read("clips/one.mp4") == b"every byte of a clip"
        with pytest.raises(StoreConflict):
            store.create("clips/one.mp4", b"another's")
        if kind == "halved":  # of files, moto does not check the checksum
            (tmp_path / "model.bin").write_bytes(b"weights" * 100)
            proxy.goes_wrong(Fault(kind=kind, methods=frozenset({"PUT"}), count=1))
            store.upload("model.bin", tmp_path / "model.bin")
            assert direct.read("model.bin") == b"weights" * 100


def test_puts_are_sent_with_checksums(s3_server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(bytes(11 << 20))
    with behind(s3_server) as (store, proxy, direct):
        proxy.sent.clear()
        store.create("clips/one.mp4", b"a clip")
        ((method, headers),) = proxy.sent  # and one request is all
        assert method == "PUT"
        assert b64decode(headers["Content-MD5"]) == hashlib.md5(b"a clip").digest()
        assert headers["If-None-Match"] == "*"
        proxy.sent.clear()
        files, place = store._backend._at("model.bin")  # type: ignore[union-attr]  # in parts, as it is beyond 100 MB
        files.put_file(str(tmp_path / "model.bin"), place, chunksize=5 << 20)
        parts = [headers for method, headers in proxy.sent if method == "PUT"]
        assert len(parts) == 3
        assert all("x-amz-checksum-crc32" in headers for headers in parts)
        assert direct.stat("model.bin").size == 11 << 20


@pytest.mark.parametrize("kind", CHECKSUMS_REFUSED)
def test_a_store_that_refuses_checksums_is_asked_once_more_without_them(
    kind: str, s3_server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model.bin").write_bytes(b"model")
    with behind(s3_server, kind=kind) as (store, proxy, direct):
        store.create("job.json", b"{}")
        elsewhere = pickle.loads(pickle.dumps(store))
        elsewhere.upload("model.bin", tmp_path / "model.bin")
        assert (elsewhere.read("job.json"), store.below("clips").list("")) == (b"{}", [])
        assert direct.read("model.bin") == b"model"
        # `create` itself asks again, without its condition, for what is not implemented.
        assert proxy.num_faults == (2 if kind == "no-checksums" else 1)
        assert f"{s3_server.url}/run 7 refuses S3's newer checksums" in caplog.text
        direct.write("table.csv", b"prompt\na fox\n")
        place = f"{s3_server.url}/run 7/table.csv"
        table = open_table(place, {**s3_server.storage_options, "endpoint_url": proxy.endpoint})
        assert [batch.to_pylist() for _, batch in table.batches()] == [[{"prompt": "a fox"}]]
        assert f"{place} refuses S3's newer checksums" in caplog.text


def test_checksums_that_the_user_asks_for_are_sent_whatever_the_store_says(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in retries.CHECKSUM_VARIABLES.values():
        monkeypatch.setenv(variable, "when_supported")
    with behind(s3_server, kind="unsupported-header") as (store, proxy, direct):
        direct.write("table.csv", b"prompt\n")
        with pytest.raises(StoreError) as of_store:
            store.write("job.json", b"{}")
        options = {**s3_server.storage_options, "endpoint_url": proxy.endpoint}
        with pytest.raises(TableError) as of_table:
            open_table(f"{s3_server.url}/run 7/table.csv", options)
        assert all(of_store.value.fix.count(name) for name in retries.CHECKSUM_VARIABLES.values())
        assert (of_table.value.fix, proxy.num_faults) == (of_store.value.fix, 2)


def test_a_store_that_refuses_for_another_reason_gets_checksums_again(s3_server: S3Server) -> None:
    with behind(s3_server, kind="invalid", count=2) as (store, proxy, _):
        with pytest.raises(StoreError, match="Errno 22"):
            store.write("job.json", b"1")
        proxy.sent.clear()
        store.write("job.json", b"2")
        assert "x-amz-checksum-crc32" in proxy.sent[0][1]


def test_uploads_left_half_done_are_swept_and_only_ours(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=s3_server.endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    bucket = s3_server.url.removeprefix("s3://")
    for key in ("run 7/clips/a", "run 7/clips/b", "run 77/clips/a"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    store = Store(f"{s3_server.url}/run 7", s3_server.storage_options)
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "_LEFT_AFTER", timedelta(days=36500))  # moto begins all of them in 2010
        assert store.sweep() == 0
    assert store.sweep() == 2
    left = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["run 77/clips/a"]


def test_attempts_that_a_user_has_set_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    config = object_store.s3_options({})["config_kwargs"]
    assert (config["retries"]["total_max_attempts"], config["read_timeout"]) == (2, 60)
    chosen = {"config_kwargs": {"retries": {"mode": "adaptive"}, "read_timeout": 90}}
    config = object_store.s3_options(chosen)["config_kwargs"]
    assert (config["retries"], config["read_timeout"]) == ({"mode": "adaptive"}, 90)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    assert "retries" not in object_store.s3_options({})["config_kwargs"]
