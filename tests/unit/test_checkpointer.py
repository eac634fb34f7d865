"""Which half-done rows a worker stores, and when; and what it does where the store fails."""

from __future__ import annotations

import logging
import threading
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from framefleet import HalfDone, Renderer, Request, Store
from framefleet.cluster.worker.checkpointer import Checkpointer, checkpoint_path
from framefleet.cluster.worker.worker import LOGGERS, Remarks

OLD, YOUNG = "a" * 32, "b" * 32
REQUEST = cast(Request, None)  # which no checkpointer looks at


class Renders:
    """In place of a renderer with two rows under way: counts how often they are saved."""

    num_saves = 0

    def save(self) -> list[HalfDone]:
        self.num_saves += 1
        return [HalfDone(row_id, REQUEST, b"half") for row_id in (OLD, YOUNG)]


class Told:
    """Notes what is told, and waits for it."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, bool, bool]] = []
        self._news = threading.Condition()

    def __call__(self, row_id: str, is_saved: bool, is_over: bool) -> None:
        with self._news:
            self.rows.append((row_id, is_saved, is_over))
            self._news.notify_all()

    def wait(self) -> None:
        with self._news:
            assert self._news.wait_for(lambda: self.rows, timeout=120)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("framefleet.cluster.worker.checkpointer.time.monotonic", lambda: now[0])
    return now


def test_a_row_is_stored_once_it_is_as_old_as_the_interval(tmp_path: Path, clock: list[float]) -> None:
    store, told, renderer = Store(str(tmp_path)), Told(), Renders()
    checkpointer = Checkpointer(store, told, every_s=10, num_threads=1)
    checkpointer.begun(OLD)
    clock[0] = 9.0
    checkpointer.begun(YOUNG)
    checkpointer.look(cast(Renderer, renderer))
    assert not renderer.num_saves
    clock[0] = 11.0
    checkpointer.look(cast(Renderer, renderer))
    checkpointer.look(cast(Renderer, renderer))
    told.wait()
    assert renderer.num_saves == 1
    assert told.rows == [(OLD, True, False)]
    assert store.read(checkpoint_path(OLD)) == checkpointer.read(OLD) == b"half"


@pytest.mark.parametrize("is_stored", [True, False])
def test_without_an_interval_a_row_is_stored_at_a_drain_and_handed_back_where_it_cannot_be(
    is_stored: bool, tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    renderer, told = Renders(), Told()
    checkpointer = Checkpointer(Store(str(tmp_path)), told, every_s=0, num_threads=1)
    checkpointer.begun(OLD)
    clock[0] = 1e6
    checkpointer.look(cast(Renderer, renderer))
    assert not renderer.num_saves
    if not is_stored:
        (tmp_path / "checkpoints").touch()  # where there should be a folder
    checkpointer.keep(HalfDone(OLD, REQUEST, b"half"), is_over=True)
    told.wait()
    assert told.rows == [(OLD, is_stored, True)]
    assert (f"row {OLD}: its checkpoint could not be written" in caplog.text) != is_stored


def test_what_a_worker_says_of_half_done_rows_is_there_for_its_driver(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    remarks = Remarks()
    remarks.listen()
    request.addfinalizer(partial(logging.getLogger("framefleet").removeHandler, remarks))
    Checkpointer(Store(str(tmp_path)), Told(), every_s=0, num_threads=1).read(OLD)
    logging.getLogger(f"{LOGGERS[0]}.hand_over").warning("rows of a kind begin again")
    logging.getLogger("framefleet.pipeline.outputs").warning("of no row, and no news")
    logging.getLogger("framefleet.pipeline.render").info("it is alone", extra={"row_id": YOUNG})
    first, second, third = remarks.take()
    assert (OLD in first.text, first.row_id, first.level) == (True, OLD, logging.WARNING)
    assert (second.text, second.row_id) == ("rows of a kind begin again", "")
    assert (third.text, third.row_id, third.level) == ("it is alone", YOUNG, logging.INFO)
    assert remarks.take() == ()
