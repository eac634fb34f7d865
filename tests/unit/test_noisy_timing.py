"""Sizes are chosen by what forwards take, and other work on the machine makes that vary."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from framefleet.pipeline.render.fused import trials
from tests.unit.denoising import Denoiser, batcher_of, render, steps


class Machine:
    """Its clock; busy: how many times as long everything takes from some forward on."""

    def __init__(self, busy: dict[int, float]) -> None:
        self.now = 0.0
        self._busy = busy
        self._num_forwards = 0

    def work(self, seconds: float) -> None:
        begun = [first for first in self._busy if first <= self._num_forwards]
        self.now += seconds * (self._busy[max(begun)] if begun else 1.0)
        self._num_forwards += 1


class Timed(Denoiser):
    """Of which one row more costs a tenth of the first, or as much as it where rows do not pay."""

    def __init__(self, machine: Machine, *, pays: bool = True) -> None:
        super().__init__()
        self._machine = machine
        self._each = 0.001 if pays else 0.01

    def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Any:
        self._machine.work(0.01 - self._each + self._each * latents.shape[0])
        return super().forward(latents, timestep, table)


def _largest(monkeypatch: pytest.MonkeyPatch, busy: dict[int, float], *, pays: bool = True) -> int:
    """Return the rows of the last forward of some."""
    machine = Machine(busy)
    clock = SimpleNamespace(thread_time=lambda: machine.now, perf_counter=lambda: machine.now)
    monkeypatch.setattr(trials, "time", clock)
    denoiser = Timed(machine, pays=pays)
    batcher = batcher_of(denoiser, mode="fast", max_rows=4, min_gain=1.05)
    for _ in range(4):
        render(batcher, *[lambda: steps(denoiser, 1.0, 1)] * 4)
    return denoiser.rows[-1]


@pytest.mark.parametrize("busy", [{}, *({first: 5.0} for first in range(1, 12))], ids=str)
def test_a_machine_that_is_or_becomes_busy_joins_as_many_rows_as_pay(
    monkeypatch: pytest.MonkeyPatch, busy: dict[int, float]
) -> None:
    assert _largest(monkeypatch, busy) == 4
    assert _largest(monkeypatch, busy, pays=False) == 1


@pytest.mark.parametrize("first", range(2, 12))
def test_a_moment_of_other_work_turns_no_size_down(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    assert _largest(monkeypatch, {first: 5.0, first + 2: 1.0}) == 4
