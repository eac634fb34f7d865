"""What of a forward is not taken apart, and what that means for sharing it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import greenlet
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit

from framefleet.pipeline.errors import ModelError
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
