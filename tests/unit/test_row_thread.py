"""A row's thread takes turns, goes away, and ends: also where it is ended, or calls a network while away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import greenlet
import pytest

from framefleet.pipeline.render.fused.row_thread import CameBack, RowThread, row_thread, stay


class Row:
    """A row of which `function` is all."""

    def __init__(self, function: Callable[[RowThread], Any]) -> None:
        self.thread = RowThread(lambda: function(self._here()))
        self.value: Any = None
        self.error: Exception | None = None
        self.greenlet = greenlet.greenlet(self._run)

    @staticmethod
    def _here() -> RowThread:
        thread = row_thread()
        assert thread is not None
        return thread

    def _run(self) -> None:
        try:
            self.value = self.thread()
        except Exception as error:
            self.error = error

    def take_turns(self) -> None:
        while not self.greenlet.dead:
            while self.thread.is_away and not self.thread.has_news:
                time.sleep(0.01)
            self.greenlet.switch()


def test_a_row_that_pauses_and_goes_away_returns_its_value() -> None:
    def function(thread: RowThread) -> int:
        thread.pause()
        thread.go_away()
        return 7

    row = Row(function)
    row.take_turns()
    assert (row.value, row.error, row.thread.is_away) == (7, None, False)


def test_a_row_that_calls_a_network_while_it_is_away_has_to_begin_again() -> None:
    def function(thread: RowThread) -> None:
        thread.go_away()
        stay()

    row = Row(function)
    row.take_turns()
    assert isinstance(row.error, CameBack)


@pytest.mark.parametrize("word", ["pause", "go_away"])
def test_a_row_that_is_ended_has_no_thread_left(word: str) -> None:
    row = Row(lambda thread: getattr(thread, word)())
    row.greenlet.switch()
    row.greenlet.throw()
    assert row.greenlet.dead and row.error is None
    row.thread._thread.join(60)
    assert not row.thread._thread.is_alive()
