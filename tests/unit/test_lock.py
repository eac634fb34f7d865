"""One driver per output: a second is refused while the first lives, and takes over when it is surely gone."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from framefleet import Output, Store
from framefleet.cluster.driver.lock import (
    PAUSE,
    STOP,
    DriverLock,
    Holder,
    parse_holder,
    requests_to,
    this_process,
)
from framefleet.jobs.control.control import RESUME, ask_driver
from framefleet.pipeline.errors import JobError, StoreError
from framefleet.pipeline.outputs.parts import seals
from framefleet.pipeline.outputs.parts.seals import epoch_path, epochs_of
from framefleet.pipeline.outputs.stores.folder import Folder

FIRST = epoch_path(1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def lock(store: Store, **changed: float) -> DriverLock:
    return DriverLock(store, **{"beat_s": 0.05, "expiry_s": 0.3, **changed})  # type: ignore[arg-type]


def held(store: Store, path: str = FIRST) -> Holder:
    holder = parse_holder(store.read(path))
    assert holder is not None
    return holder


def test_each_driver_has_an_epoch_of_its_own_and_says_when_it_ends(store: Store) -> None:
    for epoch in (1, 2, 3):
        with lock(store) as ours:
            ours.check()
            assert ours.epoch == epoch
            assert not held(store, epoch_path(epoch)).ended
        assert held(store, epoch_path(epoch)).ended
    assert epochs_of(store) == [1, 2, 3]


def test_the_lock_goes_when_the_block_fails(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), lock(store):
        raise ZeroDivisionError
    assert held(store).ended


def test_a_second_driver_is_told_who_writes_here(store: Store) -> None:
    with lock(store), pytest.raises(JobError, match=r"is being written by pid \d+ on .+ since") as caught:
        lock(store).__enter__()
    assert caught.value.exit_code == 2
    assert epochs_of(store) == [1]


@pytest.mark.parametrize("dead", [[], [1]], ids=["a new output", "a dead driver's"])
def test_of_many_drivers_at_once_one_gets_the_lock(dead: list[int], store: Store) -> None:
    for epoch in dead:
        store.write(epoch_path(epoch), replace(this_process("dead"), process_started="1").to_bytes())
    entered, refused, done = [], [], threading.Event()

    def drive() -> None:
        try:
            with lock(store, beat_s=1):
                entered.append(1)
                done.wait(200)
        except JobError:
            refused.append(1)
            if len(refused) == 7:
                done.set()

    threads = [threading.Thread(target=drive) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 7)


def test_the_counter_rises(store: Store) -> None:
    with lock(store, beat_s=0.01):
        first = held(store).beat
        wait_until(lambda: held(store).beat > first + 1)


CHILD = """
import sys, time
from framefleet.cluster.driver.lock import DriverLock
from framefleet.pipeline.outputs.stores.store import Store
with DriverLock(Store(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_driver_that_deletes_what_others_left_says_that_it_is_at_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = []

    def sweep_slowly(store: Store, hold: DriverLock) -> None:
        wait_until(lambda: held(store).beat > 1)
        beats.append(held(store).beat)

    monkeypatch.setattr(seals, "sweep_late", sweep_slowly)
    with lock(store, beat_s=0.01):
        assert beats


def test_a_driver_that_cannot_delete_what_others_left_beats_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: Store, hold: DriverLock) -> None:
        raise StoreError("no", "wait")

    monkeypatch.setattr(seals, "sweep_late", fail)
    before = {*threading.enumerate()}
    with pytest.raises(StoreError):
        lock(store, beat_s=0.01).__enter__()
    wait_until(lambda: not {one for one in threading.enumerate() if one.name == "driver.lock"} - before)


def test_a_driver_that_is_interrupted_as_it_begins_gives_the_output_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(store: Store, hold: DriverLock) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(seals, "sweep_late", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lock(store).__enter__()
    assert held(store).ended and not held(store).left_nothing


def test_a_killed_driver_on_this_machine_is_replaced_at_once(store: Store) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, store.url_of("")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(JobError, match=f"pid {child.pid}"):
        lock(store).__enter__()
    child.kill()
    wait_until(held(store).is_gone)  # not reaped yet: a zombie counts as gone
    before = time.monotonic()
    with DriverLock(store, expiry_s=600) as ours:
        assert ours.still_ours()
    assert time.monotonic() - before < 200  # seconds, and not the 600 of a driver elsewhere
    child.wait()


def test_a_process_id_used_again_is_another_process(store: Store) -> None:
    store.write(FIRST, replace(this_process("dead"), process_started="1").to_bytes())
    with lock(store) as ours:
        assert ours.epoch == 2


def elsewhere(owner: str, beat: int = 0) -> Holder:
    return replace(this_process(owner), host="far-away", machine="another boot", beat=beat)


def test_a_driver_elsewhere_that_beats_is_left_alone(store: Store) -> None:
    store.write(FIRST, elsewhere("alive").to_bytes())
    is_over = threading.Event()

    def beat() -> None:
        number = 0
        while not is_over.wait(0.02):
            number += 1
            store.write(FIRST, elsewhere("alive", number).to_bytes())

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(JobError, match="on far-away"):
            lock(store, expiry_s=200).__enter__()
    finally:
        is_over.set()
        beating.join()
    assert epochs_of(store) == [1]


def test_a_driver_elsewhere_that_stopped_beating_is_replaced(store: Store) -> None:
    store.write(FIRST, elsewhere("dead").to_bytes())
    before = time.monotonic()
    with lock(store) as ours:
        assert ours.still_ours()
    assert time.monotonic() - before >= 0.3
    assert held(store).owner == "dead", "nobody writes another's file"


def test_a_driver_elsewhere_that_ends_makes_room_at_once(store: Store) -> None:
    far = elsewhere("ending")
    store.write(FIRST, far.to_bytes())
    end = threading.Timer(0.1, lambda: store.write(FIRST, replace(far, ended=True).to_bytes()))
    end.start()
    with lock(store, expiry_s=60, beat_s=0.05) as ours:
        assert ours.still_ours()


@pytest.mark.parametrize("content", [b"", b"not json", b"{}", b"[1]"])
def test_a_lock_that_nobody_can_read_expires_too(store: Store, content: bytes) -> None:
    store.write(FIRST, content)
    with lock(store) as ours:
        assert ours.still_ours()


def test_a_driver_that_lost_the_lock_knows_it_and_leaves_the_other_alone(store: Store) -> None:
    other = elsewhere("other").to_bytes()
    with lock(store, beat_s=60) as ours:
        ours.check_seen()
        store.create(epoch_path(2), other)
        with pytest.raises(StoreError, match="not the newest lock any more"):
            ours.check()
        with pytest.raises(StoreError):
            ours.check_seen()
    assert store.read(epoch_path(2)) == other
    assert not held(store).ended


def test_a_driver_learns_from_its_own_beat_that_it_lost_the_lock(store: Store) -> None:
    with lock(store, beat_s=0.01) as ours:
        store.create(epoch_path(2), elsewhere("other").to_bytes())
        assert ours.lost.wait(200)


def test_epochs_go_on_from_the_parts_where_somebody_cleared_the_locks(store: Store) -> None:
    store.write("records/part-000007-20260102T030405-89abcdef-000001.parquet", b"")
    with lock(store) as ours:
        assert ours.epoch == 8


def test_a_store_whose_listing_lags_is_asked_less_and_less_often(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, shown_at = [0], time.monotonic() + 3
    listed = Store.list

    def lagging(store: Store, folder: str) -> list[str]:
        asked[0] += 1
        return [path for path in listed(store, folder) if time.monotonic() > shown_at]

    monkeypatch.setattr(Store, "list", lagging)
    with DriverLock(store) as lock:
        assert lock.epoch == 1
    assert asked[0] < 40


def test_a_store_that_fails_for_a_moment_does_not_end_the_beating(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read, fails = Folder.read, threading.Event()

    def read_or_fail(folder: Folder, path: str, count: int | None = None) -> bytes:
        if fails.is_set():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return read(folder, path, count)

    monkeypatch.setattr(Folder, "read", read_or_fail)
    with lock(store, beat_s=0.05):
        fails.set()
        wait_until(lambda: "could not renew" in caplog.text)
        fails.clear()
        first = held(store).beat
        wait_until(lambda: held(store).beat > first)


def test_a_store_that_is_silent_for_too_long_ends_a_driver_that_writes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path), outage_s=0.1)

    def is_silent(*_: object) -> list[str]:
        raise TimeoutError("no answer")

    with lock(store, beat_s=0.05) as ours, monkeypatch.context() as patch:
        ours.check_seen()
        patch.setattr(Folder, "list", is_silent)
        wait_until(lambda: ours._outage)
        with pytest.raises(StoreError, match="could not list") as caught:
            ours.check_seen()
        assert caught.value.exit_code == 3


def wait_until(condition: object, timeout_s: float = 200) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


def test_a_driver_that_ends_as_it_is_asked_is_none_that_was_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = lock(store)
    ours.__enter__()
    write = Store.write

    def write_late(store: Store, path: str, content: bytes) -> None:
        if path.endswith(STOP):
            ours.__exit__(None, None, None)
        write(store, path, content)

    monkeypatch.setattr(Store, "write", write_late)
    with pytest.raises(JobError, match="no job writes to"):
        ask_driver(Output(store), STOP)


def test_a_driver_that_renders_no_table_is_not_asked_to_pause(store: Store) -> None:
    with lock(store) as ours, pytest.raises(JobError, match="can't be paused: it renders no rows now"):
        ask_driver(Output(store), PAUSE)
    assert not requests_to(store, ours.epoch)


def test_a_driver_sees_what_it_is_asked_for_and_the_next_does_not(store: Store) -> None:
    with lock(store, can_pause=True) as ours:
        asked = ask_driver(Output(store), PAUSE)
        assert (asked.epoch, asked.pid) == (ours.epoch, os.getpid())
        wait_until(lambda: ours.asked == {PAUSE})
        ask_driver(Output(store), STOP)
        wait_until(lambda: ours.asked == {PAUSE, STOP})
        ask_driver(Output(store), RESUME)
        wait_until(lambda: ours.asked == {STOP})
    for ask in (lambda: ask_driver(Output(store), STOP), lambda: ask_driver(Output(store), RESUME)):
        with pytest.raises(JobError, match="no job writes to"):
            ask()
    with lock(store) as ours:
        beat = held(store, epoch_path(2)).beat
        wait_until(lambda: held(store, epoch_path(2)).beat > beat)
        assert not ours.asked
