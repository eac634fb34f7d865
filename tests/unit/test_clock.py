"""A worker's clock says where its time goes: every second has one cause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from framefleet.pipeline.render.clock import Clock


class Moments:
    """A host, and a device that comes to what it is told to do after what it was told before."""

    are_anyones = False

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


class Doubling(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * values


@pytest.fixture
def moments() -> Moments:
    return Moments()


@contextmanager
def on_a_gpu(moments: Moments) -> Iterator[Clock]:
    with mock.patch("framefleet.pipeline.render.clock._Events", lambda device: moments):
        yield Clock("cuda:0", now=moments)


def test_all_but_the_models_work_is_idle_by_what_it_waits_for(moments: Moments) -> None:
    clock = Clock(now=moments)
    with clock.spending("rows"):
        moments.now += 1
    moments.now += 2
    with clock.spending("denoise"):
        moments.now += 4
        with clock.spending("inputs"):  # of an audit
            moments.now += 8
    with clock.spending("media"):
        moments.now += 16
        with clock.spending("denoise"):
            moments.now += 32
    assert clock.seconds() == {"rows": 1, "pipeline": 2, "denoise": 44, "media": 16}
    assert clock.idle_seconds() == {"rows": 1, "pipeline": 2, "media": 16}
    assert clock.elapsed_s == 63


def test_what_an_audit_calls_is_its_own_and_a_compilation_is_of_nobody(moments: Moments) -> None:
    clock = Clock(now=moments)
    pairs = (("audit", "denoise"), ("denoise", "probe"), ("denoise", "compile"), ("audit", "store"))
    for cause, inner in pairs:
        with clock.spending(cause):
            moments.now += 1
            with clock.spending(inner):
                moments.now += 2
    assert clock.seconds() == {"audit": 4, "denoise": 2, "probe": 2, "compile": 2, "store": 2}


def test_what_torch_compiles_is_told_from_what_the_model_computes(moments: Moments) -> None:
    def compiler(graph: Any, _: Any) -> Callable[..., Any]:
        moments.now += 4

        def compute(*given: Any) -> Any:
            moments.now += 1
            return graph(*given)

        return compute

    clock = Clock(now=moments)
    clock.watch_compiler()
    network = Doubling()
    network.compile(backend=compiler)
    with clock.spending("denoise"):
        network(torch.zeros(1, 2))
    assert clock.seconds() == {"compile": 4, "denoise": 1}


def test_what_lasts_is_counted_as_far_as_it_went(moments: Moments) -> None:
    clock = Clock(now=moments)
    with clock.spending("rows"):
        moments.now += 1
        (thread := threading.Thread(target=clock.idle_seconds)).start()  # another may ask too
        thread.join()
        assert clock.idle_seconds() == {"rows": 1}
        moments.now += 1
    assert clock.idle_seconds() == clock.lap() == {"rows": 2}
    assert clock.lap() == {}


def test_a_thread_stands_still_from_its_last_turn_on_but_not_while_it_waits_for_others(
    moments: Moments,
) -> None:
    clock = Clock(now=moments)
    with clock.spending("rows"):
        moments.now += 100
        assert clock.still_s() == 0
    with clock.spending("denoise"):
        moments.now += 7
        clock.idle_seconds()  # whoever asks is no progress
        assert clock.still_s() == 7
    moments.now += 1
    assert clock.still_s() == 1, "between two forwards"
    for cause in ("upload", "store"):
        with clock.spending(cause):
            moments.now += 100
            assert clock.still_s() == 0


def test_a_gpu_that_still_works_is_not_idle(moments: Moments) -> None:
    with on_a_gpu(moments) as clock:
        with clock.spending("denoise"):
            moments.launch(10)  # returns at once
        moments.now += 6
        with clock.spending("denoise"):
            moments.launch(1)
        assert clock.idle_seconds() == {}  # not come to
        moments.now = 11.0
        assert clock.idle_seconds() == {}
        assert clock.seconds() == {"denoise": 11}


def test_a_gpus_gap_is_shared_out_by_what_the_host_did(moments: Moments) -> None:
    with on_a_gpu(moments) as clock:
        with clock.spending("denoise"):
            moments.launch(10)
        moments.now += 5
        with clock.spending("media"):
            moments.now += 15
        with clock.spending("denoise"):
            moments.launch(1)
    assert clock.idle_seconds() == {"pipeline": 2.5, "media": 7.5}


def test_a_broken_gpu_has_no_moments_and_what_is_called_says_so_itself() -> None:
    clock = Clock("cuda:0")  # as one that is broken, there is none here
    with pytest.raises(RuntimeError, match="illegal"), clock.spending("denoise"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    assert clock.idle_seconds() == {}


def test_networks_that_compute_are_busy_and_left_as_they_were(moments: Moments) -> None:
    class Coder(nn.Module):
        def forward(self, seconds: float) -> None:
            moments.now += seconds

        decode = forward

    coder, clock = Coder(), Clock(now=moments)
    before = dict(vars(coder))
    with clock.seeing({"vae": coder}):
        coder(1.0)
        coder.decode(2.0)
        moments.now += 4
    assert clock.idle_seconds() == {"pipeline": 4}
    assert vars(coder) == before
