"""Adapters follow their rows: through greenlets, pinned calls and fused forwards."""

from __future__ import annotations

import warnings

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from framefleet import Batching
from framefleet.pipeline.hooks.adapters import Adapters, RowAdapters, working_on
from framefleet.pipeline.render.fused.batcher import Batcher, RowTask
from framefleet.pipeline.render.fused.forwards import Forwards
from framefleet.pipeline.render.lora_layers import LoraLayers

ROWS: list[Adapters] = [(), (("x", 1.0),), (("x", 0.5),), (("y", 2.0),), (("x", 1.0), ("y", -1.0))]


class Mixer(nn.Module):
    """A denoiser with one adapted layer; `turned` gives it rows that are not outermost."""

    def __init__(self, *, turned: bool = False) -> None:
        super().__init__()
        self.to_q = nn.Linear(8, 8)
        self.to_v = nn.Linear(8, 8)
        self.turned = turned
        self.rows: list[int] = []

    def forward(self, latents: Tensor) -> Tensor:
        self.rows.append(latents.shape[0])
        hidden = self.to_q(latents)
        return self.to_v(hidden.transpose(0, 1)).transpose(0, 1) if self.turned else self.to_v(hidden)


@pytest.fixture
def mixer(request: pytest.FixtureRequest) -> Mixer:
    torch.manual_seed(0)
    network = Mixer(turned=getattr(request, "param", False)).eval()
    for name, targets in {"x": ["to_q", "to_v"], "y": ["to_v"]}.items():
        add_adapter(network, name, targets)
    return network


def add_adapter(network: Mixer, name: str, targets: list[str]) -> None:
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    with warnings.catch_warnings(action="ignore"):  # of a second adapter
        inject_adapter_in_model(config, network, adapter_name=name)
    network.requires_grad_(False)


def alone(network: nn.Module, latents: Tensor, adapters: Adapters) -> Tensor:
    LoraLayers({"unet": network}).hold(RowAdapters(adapters))
    with torch.no_grad():
        output: Tensor = network(latents)
    return output


def rendered(
    network: nn.Module, latents: list[Tensor], rows: list[Adapters] = ROWS, batcher: Batcher | None = None
) -> list[Tensor]:
    layers = LoraLayers({"unet": network})
    batcher = batcher or Batcher(Forwards({"unet": network}, Batching(min_gain=0)))
    own = [RowAdapters(rows[row % len(rows)]) for row in range(len(latents))]

    def recipe(row: int) -> Tensor:
        with working_on([own[row]]):
            for _ in range(2):  # the second is fused by what was learned at the first
                output: Tensor = network(latents[row])
            return output

    tasks = [batcher.start(RowTask(lambda row=row: recipe(row))) for row in range(len(latents))]
    with layers.seen():
        while batcher.tasks:
            batcher.step()
    assert [task.error for task in tasks] == [None] * len(tasks)
    return [task.value for task in tasks]


@pytest.mark.parametrize("mixer", [False, True], indirect=True, ids=["outermost", "not outermost"])
def test_rows_of_different_adapters_keep_their_bits_and_share_a_forward(mixer: Mixer) -> None:
    shape = (1, 8, 8) if mixer.turned else (2, 3, 8)
    latents = [torch.randn(shape) for _ in range(8)]
    expected = [alone(mixer, latents[row], ROWS[row % len(ROWS)]) for row in range(8)]
    mixer.rows.clear()
    found = rendered(mixer, latents)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    assert mixer.turned or mixer.rows[-1] == 16
    assert "forward" not in vars(mixer.to_q)


class Blocks(nn.Module):
    """A denoiser whose block is compiled."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.rows: list[int] = []

    def forward(self, latents: Tensor) -> Tensor:
        self.rows.append(latents.shape[0])
        return self.block(latents)


def test_compiled_blocks_run_rows_of_equal_adapters_and_weights_at_once(mixer: Mixer) -> None:
    network = Blocks(nn.Sequential(mixer.to_q, mixer.to_v)).eval()
    network.block.compile(backend="eager", fullgraph=True, dynamic=False)
    latents = [torch.randn(2, 3, 8) for _ in range(2 * len(ROWS))]
    expected = [alone(network, row, ROWS[i % len(ROWS)]) for i, row in enumerate(latents)]
    network.rows.clear()
    fast = Batcher(Forwards({"unet": network}, Batching(mode="fast", min_gain=0)))
    for mine, theirs in zip(rendered(network, latents, batcher=fast), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert max(network.rows) == 4  # two rows of each
    assert "forward" not in vars(network)


@pytest.mark.parametrize("mixer", [True], indirect=True)
def test_rows_outermost_in_some_layers_prove_nothing_of_others(mixer: Mixer) -> None:
    """`to_q` is given rows first, and has `z` alone; `to_v` has `y`, and rows second, as ERNIE's layers."""
    add_adapter(mixer, "z", ["to_q"])
    latents = [torch.randn(1, 8, 8) for _ in range(4)]
    batcher = Batcher(Forwards({"unet": mixer}, Batching(min_gain=0)))
    alike: list[Adapters] = [(("y", 1.0),), (("y", 1.0), ("z", 1.0))]  # in what `to_v` has
    for rows in (alike * 2, [(("y", 1.0),), (("z", 1.0),)] * 2):
        for _ in range(3):
            expected = [alone(mixer, *own) for own in zip(latents, rows, strict=True)]
            found = rendered(mixer, latents, rows, batcher)
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


def test_outside_of_rows_a_layer_is_as_its_owner_set_it(mixer: Mixer) -> None:
    latents = torch.randn(2, 3, 8)
    expected = alone(mixer, latents, ROWS[4])
    layers = LoraLayers({"unet": mixer, "unet_2": nn.Linear(2, 2)})
    with torch.no_grad(), layers.seen():
        assert torch.equal(mixer(latents), expected)
    assert layers.used_in("unet", (("x", 1.0), ("z", 1.0))) == (("x", 1.0),)
    assert layers.used_in("unet_2", (("x", 1.0),)) == ()
