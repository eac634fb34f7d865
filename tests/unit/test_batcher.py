"""Tasks share forwards, and none of them notices the others."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

from framefleet import Batching, TableError
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.render.fused import batching
from framefleet.pipeline.render.fused.batcher import Batcher, RowTask
from framefleet.pipeline.render.fused.calls import Method
from framefleet.pipeline.render.fused.forwards import Forwards
from framefleet.plugins.train.dataset.batches import Batches
from framefleet.plugins.train.task import Bucket
from tests.training_jobs import batches_of
from tests.unit.denoising import Denoiser, alone, batcher_of, render, steps


def test_every_task_gets_what_it_would_get_alone_in_fewer_forwards() -> None:
    denoiser = Denoiser()
    batcher = batcher_of(denoiser)
    for _ in range(3):  # the third round finds all sizes tried
        denoiser.rows.clear()
        tasks = render(batcher, *(lambda i=i: steps(denoiser, float(i)) for i in range(8)))
        assert [task.value for task in tasks] == [alone(float(i)) for i in range(8)]
    assert denoiser.rows == [8, 8, 8]
    assert tasks[0].batch_size == 8


def test_tasks_of_other_lengths_and_timesteps_share_and_newcomers_join() -> None:
    denoiser = Denoiser()
    batcher = batcher_of(denoiser, max_rows=2)
    render(batcher, *[lambda: steps(denoiser, 1.0)] * 2)
    denoiser.rows.clear()
    long = batcher.start(RowTask(lambda: steps(denoiser, 1.0, 4)))
    short = batcher.start(RowTask(lambda: steps(denoiser, 2.0, 2)))
    while not short.is_finished:
        batcher.step()
    newcomer = batcher.start(RowTask(lambda: steps(denoiser, 3.0, 2)))
    while batcher.tasks:
        batcher.step()
    assert denoiser.rows == [2, 2, 2, 2]
    assert [long.value, short.value, newcomer.value] == [alone(1.0, 4), alone(2.0, 2), alone(3.0, 2)]


def test_finished_tasks_come_back_before_the_forwards_of_the_others_run() -> None:
    denoiser = Denoiser()
    batcher = batcher_of(denoiser)
    batcher.start(RowTask(lambda: "at once"))
    batcher.start(RowTask(lambda: steps(denoiser, 1.0)))
    assert [task.value for task in batcher.step()] == ["at once"]
    assert denoiser.rows == []


def test_where_large_forwards_are_not_worth_sharing_the_first_row_is_done_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "LARGE_S", 0)
    denoiser = Denoiser()
    batcher = batcher_of(denoiser, min_gain=1e9)
    tasks = [batcher.start(RowTask(lambda i=i: steps(denoiser, float(i), 10))) for i in range(8)]
    while not (finished := batcher.step()):
        pass
    assert finished == tasks[:1]
    assert sum(denoiser.rows) < 30  # 10 of its own, and one attempt; in turns it would be over 80
    while batcher.tasks:
        finished += batcher.step()
    assert finished == tasks
    assert [task.value for task in tasks] == [alone(float(i), 10) for i in range(8)]


def test_only_tasks_with_an_equal_table_share() -> None:
    denoiser = Denoiser()
    tables = [torch.arange(6.0), torch.arange(6.0), torch.ones(6)]
    batcher = batcher_of(denoiser)
    for _ in range(2):
        denoiser.rows.clear()
        tasks = render(batcher, *(lambda t=t: steps(denoiser, 1.0, 1, t) for t in tables))
    assert [task.value for task in tasks] == [alone(1.0, 1, table) for table in tables]
    assert denoiser.rows == [2, 1]


def test_an_exception_in_one_rows_forward_reaches_only_that_row() -> None:
    denoiser = Denoiser()
    batcher = batcher_of(denoiser)
    for _ in range(2):  # first while sizes are tried, then in a forward of known size
        tasks = render(batcher, *(lambda i=i: steps(denoiser, i) for i in (12.0, 13.0, 14.0)))
        assert [type(task.error) for task in tasks] == [type(None), ValueError, type(None)]
        assert tasks[0].value == alone(12.0)
        assert tasks[2].value == alone(14.0)


def test_a_task_may_go_on_after_a_forward_that_failed_or_end_and_leaves_the_others_alone() -> None:
    denoiser = Denoiser()

    def goes_on() -> float:
        try:
            return steps(denoiser, 13.0)
        except ValueError:
            return steps(denoiser, 1.0)

    def ends() -> None:
        steps(denoiser, 1.0, 1)
        raise KeyError("no such thing")

    tasks = render(batcher_of(denoiser), goes_on, ends, lambda: steps(denoiser, 2.0, 6))
    assert isinstance(tasks[1].error, KeyError)
    assert (tasks[0].value, tasks[2].value) == (alone(1.0), alone(2.0, 6))


def test_gradients_stay_off_in_all_tasks_and_come_back_outside() -> None:
    denoiser = Denoiser()

    def recipe(num_steps: int) -> bool:
        with torch.no_grad():  # as a pipeline's call; the shorter task leaves its block first
            steps(denoiser, 1.0, num_steps)
        steps(denoiser, 1.0, 2)
        return torch.is_grad_enabled()

    tasks = render(batcher_of(denoiser), lambda: recipe(1), lambda: recipe(3))
    assert [task.value for task in tasks] == [False, False] and torch.is_grad_enabled()


def test_a_task_that_wants_gradients_gets_them_and_no_other_does() -> None:
    denoiser = Denoiser()

    def has_gradients(wanted: bool) -> Any:
        with torch.set_grad_enabled(wanted):
            return denoiser(torch.ones(1, 4), torch.tensor(0.0)).requires_grad

    tasks = render(batcher_of(denoiser), *[partial(has_gradients, wanted) for wanted in (True, False)] * 2)
    assert [task.value for task in tasks] == [True, False, True, False]


def test_rows_are_fused_under_a_callers_inference_mode_too() -> None:
    denoiser = Denoiser()
    batcher = batcher_of(denoiser, max_rows=2)
    with torch.inference_mode():
        for _ in range(2):
            denoiser.rows.clear()
            tasks = render(batcher, *[lambda: steps(denoiser, 1.0, 1, torch.ones(3))] * 2)
        assert torch.is_inference_mode_enabled()
    assert denoiser.rows == [2]
    assert tasks[0].error is None


def test_cancelled_tasks_end_where_they_are_and_gradients_stay_as_they_were() -> None:
    denoiser = Denoiser()
    ended = []

    def recipe() -> None:
        try:
            with torch.no_grad():
                steps(denoiser, 1.0)
        finally:
            ended.append(True)

    batcher = batcher_of(denoiser)
    for _ in range(2):
        batcher.start(RowTask(recipe))
    batcher.step()
    batcher.start(RowTask(recipe))  # has not begun: nothing to end
    batcher.cancel()
    assert not batcher.tasks
    assert ended == [True, True]
    assert torch.is_grad_enabled()
    assert render(batcher, lambda: steps(denoiser, 1.0))[0].value == alone(1.0)


def test_a_denoiser_that_calls_another_runs_it_within_its_own_forward() -> None:
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Any:
            return self.inner(latents, timestep, table)

    inner = Denoiser()
    outer = Outer(inner)
    batcher = Batcher(Forwards({"transformer": outer, "transformer_2": inner}, Batching(min_gain=0)))
    recipes = (lambda: steps(outer, 1.0), lambda: steps(outer, 2.0), lambda: steps(inner, 3.0))
    assert [task.value for task in render(batcher, *recipes)] == [alone(1.0), alone(2.0), alone(3.0)]


class Decoder(nn.Module):
    """Doubles; notes the rows of every call."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def decode(self, latents: Tensor) -> Tensor:
        self.rows.append(latents.shape[0])
        return latents * 2


def test_rows_share_what_they_call_beside_denoisers_and_count_it_apart() -> None:
    denoiser, decoder = Denoiser(), Decoder()
    beside = {"vae.decode": Method(decoder, "decode", "decode_s")}
    batcher = Batcher(Forwards({"unet": denoiser}, Batching(min_gain=0), shared=beside))

    def recipe(start: float, num_steps: int) -> float:
        steps(denoiser, start, num_steps)
        return decoder.decode(torch.full((1, 4), start))[0, 0].item()

    for _ in range(2):  # the second round finds all sizes tried
        decoder.rows.clear()
        starts = [(1.0, 2), (2.0, 2), (3.0, 2), (4.0, 3)]
        tasks = render(batcher, *(lambda s=s, n=n: recipe(s, n) for s, n in starts))
        assert [task.value for task in tasks] == [2.0, 4.0, 6.0, 8.0]
    assert decoder.rows == [3, 1]
    assert [task.num_forwards for task in tasks] == [2, 2, 2, 3]
    assert all(list(task.seconds) == ["decode_s"] for task in tasks)


def test_a_decoder_that_a_row_casts_around_its_call_is_called_at_once() -> None:
    class Casting(Decoder):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=torch.float16))

        def decode(self, latents: Tensor) -> Tensor:
            return super().decode(latents * self.weight)

    decoder = Casting()
    beside = {"vae.decode": Method(decoder, "decode", "decode_s", torch.float16)}
    batcher = Batcher(Forwards({"unet": Denoiser()}, Batching(min_gain=0), shared=beside))

    def recipe() -> torch.dtype:
        assert decoder.weight.dtype == torch.float16
        decoder.float()
        decoded = decoder.decode(torch.ones(1, 4))
        decoder.half()
        return decoded.dtype

    tasks = render(batcher, recipe, recipe)
    assert [task.value for task in tasks] == [torch.float32] * 2
    assert decoder.rows == [1, 1]


def test_what_stands_around_methods_sees_calls_before_they_wait_for_others() -> None:
    denoiser, seen = Denoiser(), []

    def note(name: str, forward: Any, *args: Any) -> Any:
        seen.append(len(denoiser.rows))
        return forward(*args)

    batcher = batcher_of(denoiser)
    tasks = [batcher.start(RowTask(lambda: steps(denoiser, 1.0, 1))) for _ in range(2)]
    while not all(task.is_finished for task in tasks):
        batcher.step(lambda: intercept({"unet": denoiser}, note))
    assert seen == [0, 0]


SMALL = Bucket(num_frames=5, height=16, width=16)
LARGE = Bucket(num_frames=9, height=32, width=32)

sizes = st.integers(1, 4)
buckets = st.lists(st.sampled_from([SMALL, LARGE]), min_size=8, max_size=60)


def _epoch(batches: Batches, accumulation: int, world_size: int, epoch: int = 0) -> list[list[list[int]]]:
    """Return the batches of every step of an epoch."""
    first = epoch * batches.steps_per_epoch
    return [
        [
            batches.rows_of(first + step, micro, rank)
            for micro in range(accumulation)
            for rank in range(world_size)
        ]
        for step in range(batches.steps_per_epoch)
    ]


@given(buckets, sizes, st.integers(1, 2), st.integers(1, 2), st.integers(0, 2**31 - 1))
def test_an_epoch_uses_no_row_twice_and_leaves_out_no_full_step(
    buckets: list[Bucket], batch_size: int, accumulation: int, world_size: int, seed: int
) -> None:
    try:
        batches = batches_of(
            buckets, batch_size=batch_size, accumulation=accumulation, world_size=world_size, seed=seed
        )
    except TableError:
        full = sum(count // batch_size for count in Counter(buckets).values())
        assert full < accumulation * world_size
        return
    for epoch in (0, 1):
        steps = _epoch(batches, accumulation, world_size, epoch)
        rows = [row for step in steps for batch in step for row in batch]
        assert len(rows) == len(set(rows))
        assert all(len({buckets[row] for row in batch}) == 1 for step in steps for batch in step)
        assert all(len(batch) == batch_size for step in steps for batch in step)
        full = sum(count // batch_size for count in Counter(buckets).values())
        assert full - len(steps) * accumulation * world_size < accumulation * world_size


def test_the_order_is_of_the_seed_and_the_epoch_and_all_rows_come_in_time() -> None:
    first, again, other = (batches_of([SMALL] * 10, batch_size=4, seed=seed) for seed in (0, 0, 1))
    epochs = [_epoch(first, 1, 1, epoch) for epoch in range(8)]
    assert epochs[3] == _epoch(again, 1, 1, 3) != _epoch(other, 1, 1, 3)
    assert epochs[0] != epochs[1]
    assert {row for epoch in epochs for step in epoch for batch in step for row in batch} == set(range(10))


def test_an_epoch_has_a_row_as_often_as_it_is_repeated() -> None:
    batches = batches_of([SMALL] * 4, batch_size=2, repeats=[3, 1, 2, 2])
    for epoch in (0, 1):
        rows = Counter(row for step in _epoch(batches, 1, 1, epoch) for batch in step for row in batch)
        assert rows == {0: 3, 1: 1, 2: 2, 3: 2}


def test_more_rows_than_memory_holds_are_refused_and_those_that_fill_no_batch_are_named() -> None:
    assert batches_of([SMALL] * 8 + [LARGE] * 3, batch_size=4).unused() == {LARGE: 3}
    with pytest.raises(TableError, match="lower the table's repeats"):
        batches_of([SMALL] * 30_000, batch_size=2, repeats=10_000)


def test_too_few_rows_for_one_step_are_refused_with_what_it_takes() -> None:
    with pytest.raises(TableError) as refused:
        batches_of([SMALL] * 7 + [LARGE] * 7, batch_size=4, accumulation=2, world_size=2)
    assert refused.value.problem == (
        "one step takes 16 rows (batch_size 4 x accumulation 2 x 2 workers), and there are 14 "
        "(7 of 5 x 16 x 16, 7 of 9 x 32 x 32; a batch is of one size)"
    )
