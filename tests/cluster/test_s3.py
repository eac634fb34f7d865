"""The store and the records on a real S3 server process."""

from __future__ import annotations

import multiprocessing
import pickle
from typing import Any, Literal

import pytest

from framefleet import Store, StoreConflict
from tests.creates import losers_of_a_race
from tests.faulty_s3 import faulty_s3
from tests.read_elsewhere import read_into
from tests.servers import S3Server


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


def test_a_server_without_conditional_writes_still_refuses_what_it_sees(s3_server: S3Server) -> None:
    with faulty_s3(s3_server.endpoint, kind="unconditional") as proxy:
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
