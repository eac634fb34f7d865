"""A row's thread takes turns, goes away, and ends: also where it is ended, or calls a network while away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import greenlet
import pytest

from framefleet.pipeline.render.fused.row_thread import CameBack, RowThread, row_thread, stay


class Row(greenlet.greenlet):  # type: ignore[misc]
    """A row of which `function` is all."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.thread = RowThread(lambda: function(row_thread()))

    def run(self) -> Any:
        try:
            return self.thread()
        except Exception as error:
            return error

    def outcome(self) -> Any:
        """Let it take turns; return what it returns or raises."""
        while not self.dead:
            while self.thread.is_away and not self.thread.has_news:
                time.sleep(0.01)
            value = self.switch()
        return value


def test_a_row_that_pauses_and_goes_away_returns_its_value() -> None:
    def function(thread: RowThread) -> int:
        thread.pause()
        thread.go_away()
        return 7

    row = Row(function)
    assert (row.outcome(), row.thread.is_away) == (7, False)


def test_a_row_that_calls_a_network_while_it_is_away_has_to_begin_again() -> None:
    def function(thread: RowThread) -> None:
        thread.go_away()
        stay()

    assert isinstance(Row(function).outcome(), CameBack)


@pytest.mark.parametrize("word", ["pause", "go_away"])
def test_a_row_that_is_ended_has_no_thread_left(word: str) -> None:
    row = Row(lambda thread: getattr(thread, word)())
    row.switch()
    row.throw()
    assert row.dead
    row.thread._thread.join(60)
    assert not row.thread._thread.is_alive()
