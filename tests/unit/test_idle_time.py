"""A worker's clock says how long its model had nothing to do, and what it waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
from torch import nn

from framefleet.pipeline.render.idle_time import Idle


class Clock:
    """A host, and a device that comes to what it is told to do after what it was told before."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_free_at = 0.0

    def __call__(self) -> float:
        return self.now

    def launch(self, seconds: float) -> None:
        self.is_free_at = max(self.is_free_at, self.now) + seconds

    def mark(self) -> float:
        return max(self.is_free_at, self.now)

    def seconds(self, first: float, then: float) -> float | None:
        return then - first if then <= self.now else None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextmanager
def on_a_gpu(clock: Clock) -> Iterator[Idle]:
    with mock.patch("framefleet.pipeline.render.idle_time._Events", lambda device: clock):
        yield Idle("cuda:0", now=clock)


def test_all_but_the_models_work_is_idle_by_what_it_waits_for(clock: Clock) -> None:
    idle = Idle(now=clock)
    with idle.waiting("rows"):
        clock.now += 1
    clock.now += 2
    with idle.busy():
        clock.now += 4
        with idle.waiting("inputs"):  # of an audit
            clock.now += 8
    with idle.waiting("writers"):
        clock.now += 16
        with idle.busy():
            clock.now += 32
    assert idle.seconds() == {"rows": 1, "pipeline": 2, "writers": 16}
    assert idle.elapsed_s == 63


def test_what_lasts_is_counted_as_far_as_it_went(clock: Clock) -> None:
    idle = Idle(now=clock)
    with idle.waiting("rows"):
        clock.now += 1
        assert idle.seconds() == {"rows": 1}
        clock.now += 1
    assert idle.seconds() == {"rows": 2}


def test_a_thread_stands_still_from_its_last_turn_on_but_not_while_it_waits_for_others(clock: Clock) -> None:
    idle = Idle(now=clock)
    with idle.waiting("rows"):
        clock.now += 100
        assert idle.still_s() == 0
    with idle.busy():
        clock.now += 7
        idle.seconds()  # whoever asks is no progress
        assert idle.still_s() == 7
    clock.now += 1
    assert idle.still_s() == 1, "between two forwards"
    with idle.waiting("uploads"):
        clock.now += 100
        assert idle.still_s() == 0


def test_laps_sum_up_to_all(clock: Clock) -> None:
    idle = Idle(now=clock)
    clock.now += 1
    assert idle.lap() == {"pipeline": 1}
    with idle.waiting("rows"):
        clock.now += 2
    assert idle.lap() == {"rows": 2}
    assert idle.lap() == {}


def test_a_gpu_that_still_works_is_not_idle(clock: Clock) -> None:
    with on_a_gpu(clock) as idle:
        with idle.busy():
            clock.launch(10)  # returns at once
        clock.now += 6
        with idle.busy():
            clock.launch(1)
        assert idle.seconds() == {}  # not come to
        clock.now = 11.0
        assert idle.seconds() == {}


def test_a_gpus_gap_is_shared_out_by_what_the_host_did(clock: Clock) -> None:
    with on_a_gpu(clock) as idle:
        with idle.busy():
            clock.launch(10)
        clock.now += 5
        with idle.waiting("writers"):
            clock.now += 15
        with idle.busy():
            clock.launch(1)
    assert idle.seconds() == {"pipeline": 2.5, "writers": 7.5}


def test_a_broken_gpu_has_no_moments_and_what_is_called_says_so_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("torch.cuda.Event", broken)
    idle = Idle("cuda:0")
    with pytest.raises(RuntimeError, match="illegal"), idle.busy():
        broken()
    assert idle.seconds() == {}


def test_networks_that_compute_are_busy_and_left_as_they_were(clock: Clock) -> None:
    class Coder(nn.Module):
        def forward(self, seconds: float) -> None:
            clock.now += seconds

        decode = forward

    coder, idle = Coder(), Idle(now=clock)
    before = dict(vars(coder))
    with idle.seeing({"vae": coder}):
        coder(1.0)
        coder.decode(2.0)
        clock.now += 4
    assert idle.seconds() == {"pipeline": 4}
    assert vars(coder) == before


def in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_another_thread_may_ask(clock: Clock) -> None:
    idle = Idle(now=clock)
    with idle.waiting("rows"):
        clock.now += 1
        in_thread(idle.seconds)
        clock.now += 1
    assert idle.seconds() == {"rows": 2}
