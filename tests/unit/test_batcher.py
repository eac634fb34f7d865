"""Tasks share forwards, and none of them notices the others."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from framefleet.pipeline.batcher import Batcher, Task
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.forwards import Batching, Forwards


class Denoiser(nn.Module):
    """Halves its input, adds time and table; notes the rows of every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []
        self.max_rows = 100
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Tensor:
        self.rows.append(latents.shape[0])
        if latents.shape[0] > self.max_rows:
            raise torch.OutOfMemoryError(f"{latents.shape[0]} rows do not fit")
        if (latents == 13).any():
            raise ValueError("13 cannot be denoised")
        output = latents * self.weight + timestep.reshape(-1, 1)
        return output if table is None else output + table.sum()


def _batcher(denoiser: nn.Module, **batching: Any) -> Batcher:
    return Batcher(Forwards({"unet": denoiser}, Batching(**{"min_gain": 0, **batching})))


def _steps(denoiser: nn.Module, start: float, num_steps: int = 3, table: Tensor | None = None) -> float:
    latents = torch.full((1, 4), start)
    for step in range(num_steps):
        latents = denoiser(latents, torch.tensor(float(step)), table)
    return latents[0, 0].item()


def _render(batcher: Batcher, *functions: Callable[[], Any]) -> list[Task]:
    tasks = [batcher.start(function) for function in functions]
    while batcher.num_tasks:
        batcher.step()
    return tasks


def _alone(*arguments: Any) -> float:
    with torch.no_grad():
        return _steps(Denoiser(), *arguments)


def test_every_task_gets_what_it_would_get_alone_in_fewer_forwards() -> None:
    denoiser = Denoiser()
    batcher = _batcher(denoiser)
    for _ in range(3):  # the third round finds all sizes tried
        denoiser.rows.clear()
        tasks = _render(batcher, *(lambda i=i: _steps(denoiser, float(i)) for i in range(8)))
        assert [task.value for task in tasks] == [_alone(float(i)) for i in range(8)]
    assert denoiser.rows == [8, 8, 8]
    assert tasks[0].batch_size == 8


def test_tasks_of_other_lengths_and_timesteps_share_and_newcomers_join() -> None:
    denoiser = Denoiser()
    batcher = _batcher(denoiser, max_rows=2)
    _render(batcher, *[lambda: _steps(denoiser, 1.0)] * 2)
    denoiser.rows.clear()
    long = batcher.start(lambda: _steps(denoiser, 1.0, 4))
    short = batcher.start(lambda: _steps(denoiser, 2.0, 2))
    while not short.is_finished:
        batcher.step()
    newcomer = batcher.start(lambda: _steps(denoiser, 3.0, 2))
    while batcher.num_tasks:
        batcher.step()
    assert denoiser.rows == [2, 2, 2, 2]
    assert [long.value, short.value, newcomer.value] == [_alone(1.0, 4), _alone(2.0, 2), _alone(3.0, 2)]


def test_finished_tasks_come_back_before_the_forwards_of_the_others_run() -> None:
    denoiser = Denoiser()
    batcher = _batcher(denoiser)
    batcher.start(lambda: "at once")
    batcher.start(lambda: _steps(denoiser, 1.0))
    assert [task.value for task in batcher.step()] == ["at once"]
    assert denoiser.rows == []


def test_only_tasks_with_an_equal_table_share() -> None:
    denoiser = Denoiser()
    tables = [torch.arange(6.0), torch.arange(6.0), torch.ones(6)]
    batcher = _batcher(denoiser)
    for _ in range(2):
        denoiser.rows.clear()
        tasks = _render(batcher, *(lambda t=t: _steps(denoiser, 1.0, 1, t) for t in tables))
    assert [task.value for task in tasks] == [_alone(1.0, 1, table) for table in tables]
    assert denoiser.rows == [2, 1]


def test_an_exception_in_one_rows_forward_reaches_only_that_row() -> None:
    denoiser = Denoiser()
    batcher = _batcher(denoiser)
    for _ in range(2):  # first while sizes are tried, then in a forward of known size
        tasks = _render(batcher, *(lambda i=i: _steps(denoiser, i) for i in (12.0, 13.0, 14.0)))
        assert [type(task.error) for task in tasks] == [type(None), ValueError, type(None)]
        assert tasks[0].value == _alone(12.0)
        assert tasks[2].value == _alone(14.0)


def test_a_task_may_go_on_after_a_forward_that_failed() -> None:
    denoiser = Denoiser()

    def recipe() -> float:
        try:
            return _steps(denoiser, 13.0)
        except ValueError:
            return _steps(denoiser, 1.0)

    tasks = _render(_batcher(denoiser), recipe, lambda: _steps(denoiser, 2.0, 6))
    assert tasks[0].value == _alone(1.0)
    assert tasks[1].value == _alone(2.0, 6)


def test_a_task_that_raises_leaves_the_others_alone() -> None:
    denoiser = Denoiser()

    def recipe() -> None:
        _steps(denoiser, 1.0, 1)
        raise KeyError("no such thing")

    broken, other = _render(_batcher(denoiser), recipe, lambda: _steps(denoiser, 2.0))
    assert isinstance(broken.error, KeyError)
    assert other.value == _alone(2.0)


@pytest.mark.parametrize("is_warm", [False, True])
def test_out_of_memory_above_three_rows_halves_and_every_row_gets_its_result(is_warm: bool) -> None:
    denoiser = Denoiser()
    batcher = _batcher(denoiser)
    recipes = [lambda i=i: _steps(denoiser, float(i)) for i in range(8)]
    if is_warm:  # larger forwards went well until now
        _render(batcher, *recipes)
    denoiser.max_rows = 3
    tasks = _render(batcher, *recipes)
    assert [task.value for task in tasks] == [_alone(float(i)) for i in range(8)]
    denoiser.rows.clear()
    _render(batcher, *recipes)
    assert max(denoiser.rows) == 2


def test_the_tensors_of_a_forward_that_ran_out_of_memory_are_gone_before_the_next() -> None:
    class Full(Denoiser):
        held: weakref.ref[Tensor] | None = None

        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Tensor:
            if latents.shape[0] > self.max_rows:
                self.held = weakref.ref(latents)
            elif self.held is not None:
                assert self.held() is None
            return super().forward(latents, timestep, table)

    denoiser = Full()
    batcher = _batcher(denoiser)
    recipes = [lambda: _steps(denoiser, 1.0)] * 4
    _render(batcher, *recipes)
    denoiser.max_rows = 2
    tasks = _render(batcher, *recipes)
    assert denoiser.held is not None
    assert [task.error for task in tasks] == [None] * 4


def test_a_row_that_does_not_fit_alone_fails_with_the_error_of_the_device() -> None:
    denoiser = Denoiser()
    denoiser.max_rows = 0
    (task,) = _render(_batcher(denoiser), lambda: _steps(denoiser, 1.0))
    assert isinstance(task.error, torch.OutOfMemoryError)


def test_gradients_stay_off_in_all_tasks_and_come_back_outside() -> None:
    denoiser = Denoiser()

    def recipe(num_steps: int) -> bool:
        with torch.no_grad():  # as a pipeline's call; the shorter task leaves its block first
            _steps(denoiser, 1.0, num_steps)
        _steps(denoiser, 1.0, 2)
        return torch.is_grad_enabled()

    tasks = _render(_batcher(denoiser), lambda: recipe(1), lambda: recipe(3))
    assert [task.value for task in tasks] == [False, False]
    assert torch.is_grad_enabled()


def test_a_task_that_wants_gradients_gets_them_and_no_other_does() -> None:
    denoiser = Denoiser()

    def guided() -> bool:
        with torch.enable_grad():
            return denoiser(torch.ones(1, 4), torch.tensor(0.0)).requires_grad

    def plain() -> bool:
        return denoiser(torch.ones(1, 4), torch.tensor(0.0)).requires_grad

    tasks = _render(_batcher(denoiser), guided, plain, guided, plain)
    assert [task.value for task in tasks] == [True, False, True, False]


def test_rows_are_fused_under_a_callers_inference_mode_too() -> None:
    denoiser = Denoiser()
    batcher = _batcher(denoiser, max_rows=2)
    with torch.inference_mode():
        for _ in range(2):
            denoiser.rows.clear()
            tasks = _render(batcher, *[lambda: _steps(denoiser, 1.0, 1, torch.ones(3))] * 2)
        assert torch.is_inference_mode_enabled()
    assert denoiser.rows == [2]
    assert tasks[0].error is None


def test_cancelled_tasks_end_where_they_are_and_gradients_stay_as_they_were() -> None:
    denoiser = Denoiser()
    ended = []

    def recipe() -> None:
        try:
            with torch.no_grad():
                _steps(denoiser, 1.0)
        finally:
            ended.append(True)

    batcher = _batcher(denoiser)
    for _ in range(2):
        batcher.start(recipe)
    batcher.step()
    batcher.start(recipe)  # has not begun: nothing to end
    batcher.cancel()
    assert batcher.num_tasks == 0
    assert ended == [True, True]
    assert torch.is_grad_enabled()
    assert _render(batcher, lambda: _steps(denoiser, 1.0))[0].value == _alone(1.0)


def test_a_denoiser_that_calls_another_runs_it_within_its_own_forward() -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Tensor:
            return self.inner(latents, timestep, table)

    inner = Denoiser()
    outer = Outer(inner)
    batcher = Batcher(Forwards({"transformer": outer, "transformer_2": inner}, Batching(min_gain=0)))
    recipes = (lambda: _steps(outer, 1.0), lambda: _steps(outer, 2.0), lambda: _steps(inner, 3.0))
    assert [task.value for task in _render(batcher, *recipes)] == [_alone(1.0), _alone(2.0), _alone(3.0)]


def test_a_model_that_takes_one_row_only_is_run_row_by_row() -> None:
    class Single(Denoiser):
        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Tensor:
            assert latents.shape[0] == 1
            return super().forward(latents, timestep, table)

    denoiser = Single()
    tasks = _render(_batcher(denoiser), *(lambda i=i: _steps(denoiser, i) for i in (1.0, 2.0, 3.0)))
    assert [task.value for task in tasks] == [_alone(1.0), _alone(2.0), _alone(3.0)]


@pytest.mark.parametrize(("mode", "expected"), [("exact", [1, 1]), ("fast", [2])])
def test_a_size_whose_bits_differ_is_used_only_in_fast_mode(mode: str, expected: list[int]) -> None:
    class Rounding(Denoiser):
        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Tensor:
            return super().forward(latents, timestep, table) + 1e-5 * (latents.shape[0] > 1)

    denoiser = Rounding()
    batcher = _batcher(denoiser, mode=mode, max_rows=2)
    for _ in range(2):
        denoiser.rows.clear()
        _render(batcher, *[lambda: _steps(denoiser, 1.0, 1)] * 2)
    assert denoiser.rows == expected


def test_fast_mode_refuses_a_size_whose_rows_get_mixed() -> None:
    class Mixing(Denoiser):
        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Tensor:
            return super().forward(latents, timestep, table) + latents.mean()

    denoiser = Mixing()
    batcher = _batcher(denoiser, mode="fast", max_rows=2)
    tasks = _render(batcher, lambda: _steps(denoiser, 1.0, 1), lambda: _steps(denoiser, 5.0, 1))
    assert [task.value for task in tasks] == [1.5, 7.5]
    denoiser.rows.clear()
    _render(batcher, lambda: _steps(denoiser, 1.0, 1), lambda: _steps(denoiser, 5.0, 1))
    assert denoiser.rows == [1, 1]


def test_calls_without_company_are_not_remembered() -> None:
    denoiser = Denoiser()
    batcher = _batcher(denoiser)
    for number in range(5):
        _render(batcher, lambda number=number: denoiser(torch.ones(1, number + 1), torch.tensor(0.0)))
    assert batcher._forwards._sizes == {}


@pytest.mark.parametrize("wrong", [{"mode": "exakt"}, {"max_rows": 0}])
def test_batching_refuses_what_it_cannot_do(wrong: dict[str, Any]) -> None:
    with pytest.raises(JobError):
        Batching(**wrong)
