"""A row's thread takes turns, ends, and draws from the global generators what it would draw alone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import greenlet
import numpy as np
import pytest
import torch
from torch import Tensor

from framefleet.pipeline.hooks.global_draws import GlobalDraws, drawing_from
from framefleet.pipeline.render.fused.batcher import Batcher, RowTask
from framefleet.pipeline.render.fused.row_thread import CameBack, RowThread, row_thread, stay
from tests.turns import drawn_in_turns
from tests.unit.denoising import Denoiser, batcher_of, render, steps


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


LARGE = 2**40 + 7  # above NumPy's 32 bits


def drawn() -> tuple[float, ...]:
    """Draw from each; one normal number of a pair leaves NumPy and Python with the other."""
    normal = float(np.random.standard_normal())
    return torch.rand(()).item(), normal, np.random.rand(), random.gauss(0.0, 1.0), random.random()


def plain(seed: int, function: Callable[[], Any]) -> Any:
    """Return what a script's function returns after it seeded the generators."""
    with GlobalDraws().preserved():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        return function()


@pytest.mark.parametrize("seed", [0, LARGE])
def test_a_seed_gives_what_a_script_gets_that_seeds_all_three(seed: int) -> None:
    with drawing_from(seed):
        assert drawn() == plain(seed, drawn)


def test_turns_draw_on_where_they_left_off() -> None:
    expected = [plain(seed, lambda: [drawn() for _ in range(3)]) for seed in range(3)]
    assert drawn_in_turns(drawn) == expected


def run_with_draws(
    network: Denoiser, function: Callable[[], Any], num_tasks: int, batcher: Batcher | None = None
) -> list[Any]:
    """Return what each of the tasks returns, which share forwards, by the generators of its own seed."""

    def seeded(draws: GlobalDraws, seed: int) -> Any:
        draws.seed(seed)
        return function()

    batcher = batcher or batcher_of(network)
    every = [GlobalDraws() for _ in range(num_tasks)]
    tasks = [batcher.start(RowTask(lambda d=d, i=i: seeded(d, i), d)) for i, d in enumerate(every)]
    while batcher.tasks:
        batcher.step()
    return [task.value for task in tasks]


def test_half_of_a_pair_is_drawn_in_the_next_turn() -> None:
    draws = GlobalDraws()
    draws.seed(1)
    found = []
    for _ in range(5):  # an odd one leaves the other half, which changes no memory when it is drawn
        with draws.turn():
            found.append(np.random.standard_normal())
        np.random.seed(2)
    assert found == plain(1, lambda: np.random.standard_normal(5).tolist())


def test_the_process_draws_on_as_if_nobody_had_drawn_between() -> None:
    def twice(between: Callable[[], Any]) -> Any:
        first = drawn()
        between()
        return first, drawn()

    def others() -> None:
        with drawing_from(5), pytest.raises(KeyError):
            drawn()
            raise KeyError

    assert plain(3, lambda: twice(others)) == plain(3, lambda: twice(lambda: None))


def test_tasks_that_share_forwards_draw_what_each_would_alone() -> None:
    denoiser = Denoiser()

    def drawing() -> Any:
        return [(drawn(), steps(denoiser, 1.0, 1), random.random()) for _ in range(3)]

    with torch.no_grad():
        expected = [plain(seed, drawing) for seed in range(4)]
    assert run_with_draws(denoiser, drawing, 4) == expected
    assert max(denoiser.rows) > 1


def test_a_network_that_draws_is_run_alone_and_draws_its_rows_numbers() -> None:
    class Drawing(Denoiser):
        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Tensor:
            return super().forward(latents, timestep, table) + torch.randn_like(latents)

    network = Drawing()
    with torch.no_grad():
        expected = [plain(seed, lambda: steps(network, 1.0)) for seed in range(3)]
    batcher = batcher_of(network)
    assert run_with_draws(network, lambda: steps(network, 1.0), 3, batcher) == expected
    assert run_with_draws(network, lambda: steps(network, 1.0), 3, batcher) == expected


def test_tasks_leave_the_process_its_own_numbers() -> None:
    def shared() -> Any:
        batcher = batcher_of(Denoiser())
        first = drawn()
        render(batcher, *[drawn] * 3)
        return first, drawn()

    assert plain(4, shared) == plain(4, lambda: (drawn(), drawn()))
