"""Calls run in sizes that fit, pay and change no bit; every row gets its own result or error."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from framefleet import Batching, JobError
from tests.unit.denoising import Denoiser, alone, batcher_of, render, steps


@pytest.mark.parametrize("is_warm", [False, True])
def test_out_of_memory_above_three_rows_halves_and_every_row_gets_its_result(is_warm: bool) -> None:
    denoiser = Denoiser()
    batcher = batcher_of(denoiser)
    recipes = [lambda i=i: steps(denoiser, float(i)) for i in range(8)]
    if is_warm:  # larger forwards went well until now
        render(batcher, *recipes)
    denoiser.max_rows = 3
    tasks = render(batcher, *recipes)
    assert [task.value for task in tasks] == [alone(float(i)) for i in range(8)]
    denoiser.rows.clear()
    render(batcher, *recipes)
    assert max(denoiser.rows) == 2


def test_the_tensors_of_a_forward_that_ran_out_of_memory_are_gone_before_the_next() -> None:
    class Full(Denoiser):
        full: weakref.ref[Tensor] | None = None

        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Any:
            if latents.shape[0] > self.max_rows:
                self.full = weakref.ref(latents)
            elif self.full is not None:
                assert self.full() is None
            return super().forward(latents, timestep, table)

    denoiser = Full()
    batcher = batcher_of(denoiser)
    recipes = [lambda: steps(denoiser, 1.0)] * 4
    render(batcher, *recipes)
    denoiser.max_rows = 2
    tasks = render(batcher, *recipes)
    assert denoiser.full is not None and [task.error for task in tasks] == [None] * 4
    denoiser.max_rows = 0
    (task,) = render(batcher, recipes[0])
    assert isinstance(task.error, torch.OutOfMemoryError), "one row does not fit alone"


def test_a_model_that_takes_one_row_only_is_run_row_by_row() -> None:
    class Single(Denoiser):
        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Any:
            assert latents.shape[0] == 1
            return super().forward(latents, timestep, table)

    denoiser = Single()
    tasks = render(batcher_of(denoiser), *(lambda i=i: steps(denoiser, i) for i in (1.0, 2.0, 3.0)))
    assert [task.value for task in tasks] == [alone(1.0), alone(2.0), alone(3.0)]


@pytest.mark.parametrize(("mode", "expected"), [("exact", [1, 1]), ("fast", [2])])
def test_a_size_whose_bits_differ_is_used_only_in_fast_mode(mode: str, expected: list[int]) -> None:
    class Rounding(Denoiser):
        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Any:
            return super().forward(latents, timestep, table) + 1e-5 * (latents.shape[0] > 1)

    denoiser = Rounding()
    batcher = batcher_of(denoiser, mode=mode, max_rows=2)
    for _ in range(2):
        denoiser.rows.clear()
        render(batcher, *[lambda: steps(denoiser, 1.0, 1)] * 2)
    assert denoiser.rows == expected


def test_fast_mode_refuses_a_size_whose_rows_get_mixed() -> None:
    class Mixing(Denoiser):
        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Any:
            return super().forward(latents, timestep, table) + latents.mean()

    denoiser = Mixing()
    batcher = batcher_of(denoiser, mode="fast", max_rows=2)
    tasks = render(batcher, lambda: steps(denoiser, 1.0, 1), lambda: steps(denoiser, 5.0, 1))
    assert [task.value for task in tasks] == [1.5, 7.5]
    denoiser.rows.clear()
    render(batcher, lambda: steps(denoiser, 1.0, 1), lambda: steps(denoiser, 5.0, 1))
    assert denoiser.rows == [1, 1]


@pytest.mark.parametrize("wrong", [{"mode": "exakt"}, {"max_rows": 0}])
def test_batching_refuses_what_it_cannot_do(wrong: dict[str, Any]) -> None:
    with pytest.raises(JobError):
        Batching(**wrong)
