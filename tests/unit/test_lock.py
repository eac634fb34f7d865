"""One driver per output: a second is refused while the first lives, and takes over when it is surely gone."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from framefleet import JobError, Output, Store, StoreError
from framefleet.cluster.driver.lock import PAUSE, STOP, DriverLock, Holder, requests_to
from framefleet.pipeline.outputs.parts.seals import epoch_path, epochs_of
from framefleet.pipeline.outputs.stores.folder import Folder
from framefleet.plugins.watch.control import RESUME, ask_driver

FIRST = epoch_path(1)


def lock(store: Store, **changed: float) -> DriverLock:
    return DriverLock(store, **{"beat_s": 0.05, "expiry_s": 0.3, **changed})  # type: ignore[arg-type]


def held(store: Store, path: str = FIRST) -> Holder:
    holder = Holder.parse(store.read(path))
    assert holder is not None
    return holder


def test_each_driver_has_an_epoch_of_its_own_and_says_when_it_ends(store: Store) -> None:
    for epoch in (1, 2, 3):
        with pytest.raises(ZeroDivisionError), lock(store, beat_s=0.01) as ours:
            ours.check()
            assert ours.epoch == epoch
            path = epoch_path(epoch)
            assert not held(store, path).ended
            wait_until(lambda path=path: held(store, path).beat > 1)
            raise ZeroDivisionError
        assert held(store, epoch_path(epoch)).ended
    assert epochs_of(store) == [1, 2, 3]
    store.delete_all("drivers")
    store.write("records/part-000007-20260102T030405-89abcdef-000001.parquet", b"")
    with lock(store) as ours:
        assert ours.epoch == 8


def test_a_second_driver_is_told_who_writes_here(store: Store) -> None:
    with lock(store), pytest.raises(JobError, match=r"is being written by pid \d+ on .+ since") as caught:
        lock(store).__enter__()
    assert caught.value.exit_code == 2
    assert epochs_of(store) == [1]


@pytest.mark.parametrize("dead", [[], [1]], ids=["a new output", "a dead driver's"])
def test_of_many_drivers_at_once_one_gets_the_lock(dead: list[int], store: Store) -> None:
    for epoch in dead:
        store.write(epoch_path(epoch), replace(Holder.here("dead"), process_started="1").to_bytes())
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


CHILD = """
import sys, time
from framefleet.cluster.driver.lock import DriverLock, Holder
from framefleet.pipeline.outputs.stores.store import Store
with DriverLock(Store(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("error", [None, StoreError("no", "wait"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["seals.sweep_late", "finish_replacing"])
def test_a_driver_that_deletes_what_others_left_beats_until_it_fails(
    step: str, error: BaseException | None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_slowly(store: Store, *_: object) -> None:
        wait_until(lambda: held(store).beat > 1, timeout_s=20)
        if error:
            raise error

    monkeypatch.setattr(f"framefleet.cluster.driver.lock.{step}", delete_slowly)
    before = {*threading.enumerate()}
    with nullcontext() if error is None else pytest.raises(type(error)), lock(store, beat_s=0.3):
        assert error is None
    wait_until(lambda: not {one for one in threading.enumerate() if one.name == "drivers.lock"} - before)
    assert held(store).ended and held(store).left_nothing is (error is None)


def test_a_driver_that_is_surely_gone_is_replaced_at_once(store: Store) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, store.url_of("")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(JobError, match=f"pid {child.pid}"):
        lock(store).__enter__()
    child.kill()
    wait_until(held(store).is_gone)  # not reaped yet: a zombie counts as gone
    with DriverLock(store, expiry_s=math.inf) as ours:  # which a driver elsewhere would have to be silent for
        assert ours.still_ours()
    child.wait()
    again = replace(Holder.here("dead"), process_started="1")  # a process id that is used again
    store.write(epoch_path(3), again.to_bytes())
    with lock(store, expiry_s=math.inf) as ours:
        assert ours.epoch == 4
    far = elsewhere("ending")
    store.write(epoch_path(5), far.to_bytes())
    end = threading.Timer(0.1, lambda: store.write(epoch_path(5), replace(far, ended=True).to_bytes()))
    end.start()
    with lock(store, expiry_s=math.inf, beat_s=0.05) as ours:
        assert ours.still_ours()


def elsewhere(owner: str, beat: int = 0) -> Holder:
    return replace(Holder.here(owner), host="far-away", machine="another boot", beat=beat)


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


@pytest.mark.parametrize("content", [elsewhere("dead").to_bytes(), b"", b"not json", b"{}", b"[1]"])
def test_a_silent_driver_elsewhere_is_replaced(content: bytes, store: Store) -> None:
    store.write(FIRST, content)
    before = time.monotonic()
    with lock(store) as ours:
        assert ours.still_ours()
    assert time.monotonic() - before >= 0.3
    assert store.read(FIRST) == content, "nobody writes another's file"


@pytest.mark.parametrize(
    "path", ["drivers/999999999.json", "records/part-999999999-20260102T130000-89abcdef-000001.parquet"]
)
def test_a_file_that_leaves_no_later_epoch_is_named(path: str, store: Store) -> None:
    store.write(path, b"{}")
    for _ in range(2):
        with pytest.raises(JobError, match="epoch 999999999, and there is none after it"):
            lock(store).__enter__()
    assert store.list("") == [path]


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


class Lagging(Store):
    """A store whose listings are empty for a second."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.num_listings, self.shown_at = 0, time.monotonic() + 1

    def list(self, folder: str) -> list[str]:
        self.num_listings += 1
        return super().list(folder) if time.monotonic() > self.shown_at else []


def test_a_store_whose_listing_lags_is_asked_less_and_less_often(store: Store) -> None:
    lagging = Lagging(store.url_of(""))
    with DriverLock(lagging) as lock:
        assert lock.epoch == 1
    assert lagging.num_listings < 30


def test_a_store_that_fails_for_a_moment_ends_no_beat(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    path, away = Path(store.url_of(FIRST)), Path(store.url_of("away"))
    with lock(store, beat_s=0.05):
        path.rename(away)
        path.symlink_to(path.name)  # "too many levels of symbolic links"
        wait_until(lambda: "could not renew" in caplog.text)
        away.rename(path)
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


class EndsAsItIsAsked(Store):
    """A store whose driver ends just before somebody writes what it is asked for."""

    driver: DriverLock

    def write(self, path: str, content: bytes) -> None:
        if path.endswith(STOP):
            self.driver.__exit__(None, None, None)
        super().write(path, content)


def test_a_driver_that_ends_as_it_is_asked_was_not_asked(store: Store) -> None:
    with lock(store) as ours, pytest.raises(JobError, match="can't be paused while it renders no rows"):
        ask_driver(Output(store), PAUSE)
    assert not requests_to(store, ours.epoch)
    asking = EndsAsItIsAsked(store.url_of(""))
    asking.driver = lock(store).__enter__()
    with pytest.raises(JobError, match="no job writes to"):
        ask_driver(Output(asking), STOP)


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
