"""Processes of workers end on one thread, which outlives what Ray raises and starts no other Ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
import ray

from framefleet.cluster.fleet.actors import Actors, Listening, Slot
from framefleet.cluster.fleet.start import KILLER


class Ray:
    """In place of Ray's functions: kills wait until the head answers, and one raises."""

    def __init__(self) -> None:
        self.killed: list[str] = []
        self.answers, self.is_there = threading.Event(), True

    def kill(self, actor: str) -> None:
        self.answers.wait(30)
        self.killed.append(actor)
        if actor == "odd":
            raise RuntimeError("Ray has not been started")


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    here = Ray()
    monkeypatch.setattr(ray, "kill", here.kill)
    monkeypatch.setattr(ray, "is_initialized", lambda: here.is_there)
    yield here
    here.answers.set()


def killers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == KILLER]


def actors() -> Actors:
    return Actors({}, object, {}, folder=None, clock=Listening(0.0))


def test_processes_end_on_one_thread_however_many_wait_for_the_head(head: Ray) -> None:
    names, before = ["a", "odd", *map(str, range(20))], len(killers())
    with closing(actors()) as some:
        for name in names:
            some.end(Slot(0, actor=name))
        assert len(killers()) == before + 1
        head.answers.set()
    for thread in killers():
        thread.join(30)
    assert head.killed == names and not killers()


def test_nothing_is_killed_once_ray_is_left(head: Ray) -> None:
    head.is_there = False
    head.answers.set()
    actors().end(Slot(0, actor="a"))
    for thread in killers():
        thread.join(30)
    assert not killers() and not head.killed
