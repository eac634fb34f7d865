"""A read that only spares work is waited for a moment."""

from __future__ import annotations

import threading

import pytest

from framefleet.pipeline.outputs.stores import retries
from framefleet.pipeline.outputs.stores.retries import Soon


def test_an_answer_that_comes_in_time_is_had_and_so_is_an_error() -> None:
    asked = Soon("test")
    assert asked.ask(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        asked.ask(lambda: 1 // 0)


def test_while_one_answer_is_overdue_nothing_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer, asked = threading.Event(), Soon("test")
    with monkeypatch.context() as patch:
        patch.setattr(retries, "WITHIN_S", 0.01)
        assert asked.ask(may_answer.wait) is None
    called: list[int] = []
    assert asked.ask(lambda: called.append(1)) is None
    assert called == []
    may_answer.set()
    while asked.ask(lambda: 7) is None:
        """Its thread has not ended that answer yet."""
