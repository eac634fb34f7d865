"""Things done queue the one who asks: in order, and what they raise is told once."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from framefleet.cluster.driver.commit import TaskQueue


def test_what_is_asked_is_done_in_order_while_the_one_who_asks_goes_on() -> None:
    queue, gate, done = TaskQueue("test"), threading.Event(), list[int]()
    queue.do(lambda: gate.wait(120) and None)
    for number in range(100):
        queue.do(partial(done.append, number))
    assert done == []
    assert queue.num_waiting == 101
    gate.set()
    queue.wait()
    assert done == list(range(100))
    assert queue.num_waiting == 0


def test_an_error_is_raised_once_and_the_rest_is_done_all_the_same() -> None:
    queue, done = TaskQueue("test"), list[int]()
    queue.do(lambda: [][0])
    queue.do(partial(done.append, 1))
    with pytest.raises(IndexError):
        queue.wait()
    assert done == [1]
    queue.wait()
    queue.check()


def test_closing_does_what_was_asked_and_may_have_had_nothing_to_do() -> None:
    TaskQueue("idle").close()
    queue, done = TaskQueue("test"), list[int]()
    queue.do(partial(done.append, 1))
    queue.close()
    assert done == [1]
