"""Things done beside the one who asks: in order, and what they raise is told once."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from framefleet.cluster.beside import Beside


def test_what_is_asked_is_done_in_order_while_the_one_who_asks_goes_on() -> None:
    beside, gate, done = Beside("test"), threading.Event(), list[int]()
    beside.do(lambda: gate.wait(10) and None)
    for number in range(100):
        beside.do(partial(done.append, number))
    assert done == []
    assert beside.num_waiting == 101
    gate.set()
    beside.wait()
    assert done == list(range(100))
    assert beside.num_waiting == 0


def test_an_error_is_raised_once_and_the_rest_is_done_all_the_same() -> None:
    beside, done = Beside("test"), list[int]()
    beside.do(lambda: [][0])
    beside.do(partial(done.append, 1))
    with pytest.raises(IndexError):
        beside.wait()
    assert done == [1]
    beside.wait()
    beside.check()


def test_closing_does_what_was_asked_and_may_have_had_nothing_to_do() -> None:
    Beside("idle").close()
    beside, done = Beside("test"), list[int]()
    beside.do(partial(done.append, 1))
    beside.close()
    assert done == [1]
