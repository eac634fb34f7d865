"""One driver per output: a second is refused while the first lives, and takes over when it is surely gone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from framefleet.cluster.holder import Holder, parse_holder, this_process
from framefleet.cluster.lock import LOCK_PATH, DriverLock
from framefleet.pipeline.errors import JobError, StoreError
from framefleet.pipeline.outputs.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def lock(store: Store, **changed: float) -> DriverLock:
    return DriverLock(store, **{"beat_s": 0.05, "expiry_s": 0.3, **changed})  # type: ignore[arg-type]


def held(store: Store) -> Holder:
    holder = parse_holder(store.read(LOCK_PATH))
    assert holder is not None
    return holder


def test_the_lock_is_there_within_the_block_and_gone_after(store: Store) -> None:
    with lock(store) as ours:
        assert ours.still_ours()
        ours.check()
    assert not store.exists(LOCK_PATH)
    with lock(store):
        pass


def test_the_lock_goes_when_the_block_fails(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), lock(store):
        raise ZeroDivisionError
    assert not store.exists(LOCK_PATH)


def test_a_second_driver_is_told_who_writes_here(store: Store) -> None:
    with lock(store), pytest.raises(JobError, match=r"is being written by pid \d+ on .+ since") as caught:
        lock(store).__enter__()
    assert caught.value.exit_code == 2


def test_of_many_drivers_at_once_one_gets_the_lock(store: Store) -> None:
    entered, refused, done = [], [], threading.Event()

    def drive() -> None:
        try:
            with lock(store):
                entered.append(1)
                done.wait(10)
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
from framefleet.cluster.lock import DriverLock
from framefleet.pipeline.outputs.store import Store
with DriverLock(Store(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_driver_on_this_machine_is_replaced_at_once(store: Store) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, store.url_of("")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(JobError, match=f"pid {child.pid}"):
        lock(store).__enter__()
    child.kill()
    while not held(store).has_ended():  # not reaped yet: a zombie counts as gone
        time.sleep(0.01)
    before = time.monotonic()
    with DriverLock(store) as ours:
        assert ours.still_ours()
    assert time.monotonic() - before < 5  # seconds, and not the 30 of a driver elsewhere
    child.wait()


def test_a_process_id_used_again_is_another_process(store: Store) -> None:
    store.write(LOCK_PATH, replace(this_process("dead"), process_started="1").to_bytes())
    with lock(store) as ours:
        assert ours.still_ours()


def elsewhere(owner: str) -> Holder:
    return replace(this_process(owner), host="far-away", machine="another boot")


def test_a_driver_elsewhere_that_beats_is_left_alone(store: Store) -> None:
    far = elsewhere("alive")
    store.write(LOCK_PATH, far.to_bytes())
    beat = threading.Timer(0.1, lambda: store.write(LOCK_PATH, far.next_beat().to_bytes()))
    beat.start()
    with pytest.raises(JobError, match="on far-away"):
        lock(store).__enter__()
    beat.join()
    assert held(store).owner == "alive"


def test_a_driver_elsewhere_that_stopped_beating_is_replaced(store: Store) -> None:
    store.write(LOCK_PATH, elsewhere("dead").to_bytes())
    before = time.monotonic()
    with lock(store) as ours:
        assert ours.still_ours()
    assert time.monotonic() - before >= 0.3


def test_a_driver_elsewhere_that_ends_makes_room_at_once(store: Store) -> None:
    store.write(LOCK_PATH, elsewhere("ending").to_bytes())
    end = threading.Timer(0.1, lambda: store.delete(LOCK_PATH))
    end.start()
    with lock(store, expiry_s=60, beat_s=0.05) as ours:
        assert ours.still_ours()


@pytest.mark.parametrize("content", [b"", b"not json", b"{}", b"[1]"])
def test_a_lock_that_nobody_can_read_expires_too(store: Store, content: bytes) -> None:
    store.write(LOCK_PATH, content)
    with lock(store) as ours:
        assert ours.still_ours()


def test_a_driver_that_lost_the_lock_knows_it_and_leaves_the_other_alone(store: Store) -> None:
    with lock(store) as ours:
        store.write(LOCK_PATH, elsewhere("other").to_bytes())
        with pytest.raises(StoreError, match="not ours any more"):
            ours.check()
    assert held(store).owner == "other"


def test_a_store_that_fails_for_a_moment_does_not_end_the_beating(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with lock(store, beat_s=0.2):  # slow enough that no beat falls between two of these lines
        kept = store.read(LOCK_PATH)
        (tmp_path / LOCK_PATH).unlink()
        (tmp_path / LOCK_PATH).mkdir()  # reading it now fails
        wait_until(lambda: "could not renew" in caplog.text)
        (tmp_path / LOCK_PATH).rmdir()
        store.write(LOCK_PATH, kept)
        first = held(store).beat
        wait_until(lambda: held(store).beat > first)


def wait_until(condition: object, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)
