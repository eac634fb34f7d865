"""Calls run in sizes that fit, pay and change no bit; every row gets its own result; what stays whole."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import greenlet
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit

from framefleet import Batching, JobError, ModelError
from framefleet.pipeline.model.options.regions import (
    MAX_GRAPHS,
    allow_graphs,
    check_compiler,
    has_compiled,
    separable,
)
from framefleet.pipeline.render.fused.calls import Method, parse_call
from framefleet.pipeline.render.fused.exact import are_equal, probe
from framefleet.pipeline.render.fused.pins import run_fused
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


def test_no_row_is_run_again_because_another_ran_out_of_memory() -> None:
    """It may have changed its arguments, as a model with a cache does."""

    class Full(Denoiser):
        fails_at = 3

        def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Any:
            if latents.shape[0] == 1 and latents.flatten()[0] == self.fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory")
            seen.append(float(latents.flatten()[0]))
            return super().forward(latents, timestep, table)

    seen: list[float] = []
    denoiser = Full()
    recipes = [lambda i=i: steps(denoiser, float(i), 1) for i in (1, 2, 3)]
    tasks = render(batcher_of(denoiser), *recipes)
    assert [task.error is None for task in tasks] == [True, True, False]
    assert seen.count(1.0) == seen.count(2.0) == 1


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


class Drifting(nn.Module):
    """A layer whose values depend on how many rows there are."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * x.shape[0]


def model(*, is_compiled: bool) -> Any:
    torch.manual_seed(0)
    made = nn.Sequential(Drifting(), nn.Linear(4, 4)).eval()
    if is_compiled:
        made[0].compile(backend="eager", fullgraph=True, dynamic=False)
    return made


def probed(made: nn.Module) -> bool:
    """Whether two rows can share a forward and keep their bits."""
    with torch.no_grad():
        calls = [parse_call("m", (torch.full((1, 4), float(value)),), {}) for value in (1, 2)]
        outputs = [(made(*call.arguments()[0]), ()) for call in calls]
        plan = probe(Method(made), calls, outputs, calls[0].axes)
        return plan is not None and are_equal(run_fused(Method(made), calls, plan), outputs)


def test_a_compiled_region_and_what_is_in_it_is_left_whole() -> None:
    made = model(is_compiled=True)
    assert has_compiled(made)
    assert list(separable(made)) == ["1"]
    assert list(separable(model(is_compiled=False))) == ["0", "0.inner", "1"]


def test_a_size_whose_bits_differ_in_a_compiled_region_is_refused() -> None:
    assert probed(model(is_compiled=False))
    assert not probed(model(is_compiled=True))


def test_blocks_that_are_offloaded_together_are_not_run_one_by_one() -> None:
    made = nn.Sequential(nn.ModuleList([nn.Linear(4, 4) for _ in range(3)]))
    apply_group_offloading(made[0], onload_device=torch.device("cpu"), offload_type="leaf_level")
    assert list(separable(made)) == ["0", "0.0", "0.1", "0.2"]
    made = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])})
    apply_group_offloading(made, onload_device=torch.device("cpu"), num_blocks_per_group=2)
    assert list(separable(made)) == ["blocks", "blocks.2"]


def test_a_missing_compiler_is_told_when_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiler("cpu")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelError, match="compile needs a C"):
        check_compiler("cpu")


def test_many_shapes_are_compiled_each_and_never_left_uncompiled() -> None:
    layer = Drifting()  # a class of ours: torch does not compile its own
    layer.compile(backend="eager", fullgraph=True, dynamic=False)
    with torch._dynamo.config.patch(recompile_limit=2, accumulated_recompile_limit=2):
        with pytest.raises(FailOnRecompileLimitHit):
            for rows in range(2, 6):
                layer(torch.zeros(rows, 4))
        allow_graphs()
        for rows in range(2, 6):
            layer(torch.zeros(rows, 4))


def test_graphs_are_allowed_in_every_thread_and_greenlet() -> None:
    import torch._dynamo.config as config

    allow_graphs()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: config.recompile_limit).result() == MAX_GRAPHS
    assert greenlet.greenlet(lambda: config.recompile_limit).switch() == MAX_GRAPHS
