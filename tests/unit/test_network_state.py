"""What a network held at one time comes back: values, hooks, and nothing in place of what has not changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from framefleet.pipeline.model.network_state import NetworkState, marks_agree, state_of


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(2))
        self.processor = SimpleNamespace(cache={})
        self.sizes = (1, 2)


def _touched() -> tuple[Any, NetworkState]:
    network: Any = Network()
    state = NetworkState(network)
    network.mean += 1
    network.processor.cache["a"] = torch.ones(2)
    network.block.installed = True
    network.block.register_forward_hook(lambda *_: torch.zeros(2))
    return network, state


def test_all_that_changed_comes_back() -> None:
    network, state = _touched()
    for _ in range(2):
        state.restore()
        assert network.mean.tolist() == [0, 0]
        assert network.processor.cache == {}
        assert not hasattr(network.block, "installed")
        assert network.block(torch.ones(2)).abs().sum() > 0
        network.processor.cache["b"] = 1  # of what was put back


def test_for_a_while_it_is_as_it_was_and_then_goes_on() -> None:
    network, state = _touched()
    processor = network.processor
    with state.restored():
        assert network.processor.cache == {}
        assert network.block(torch.ones(2)).abs().sum() > 0
        network.other = 1
    assert network.processor is processor
    assert list(processor.cache) == ["a"]
    assert network.mean.tolist() == [1, 1]
    assert network.block.installed
    assert network.block(torch.ones(2)).abs().sum() == 0
    assert not hasattr(network, "other")


def test_what_a_first_forward_computes_of_weights_comes_back_as_it_was_loaded() -> None:
    network: Any = Network()
    network.computed = [torch.empty(2, device="meta"), network.block.weight * 2]
    state = NetworkState(network)
    network.processor.cache["a"] = 1
    for computed in (network.computed, [torch.ones(2), torch.ones(2, 2)]):
        network.computed = computed
        with state.restored():
            assert network.computed[0].is_meta
            assert network.processor.cache == {}
        assert network.computed is computed


def test_what_is_equal_stays_the_same_object_and_what_changes_meanwhile_does_not_stay() -> None:
    network: Any = Network()
    before = (network.mean, network.processor, network.sizes, network.block.weight)
    state = NetworkState(network)
    state.restore()
    handle = network.block.register_forward_hook(lambda *_: torch.zeros(2))
    with state.restored():
        pass
    now = (network.mean, network.processor, network.sizes, network.block.weight)
    assert all(a is b for a, b in zip(before, now, strict=True))
    with state.restored():
        network.processor.cache["a"] = 1
        network.mean += 1
    assert (network.processor.cache, network.mean.tolist()) == ({}, [0, 0])
    handle.remove()
    assert network.block(torch.ones(2)).abs().sum() > 0


def test_weights_that_a_forward_calculates_come_back_as_they_were_loaded() -> None:
    with torch.device("meta"):
        network: Any = nn.utils.weight_norm(nn.Linear(2, 2))
    loaded = {name: torch.ones(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(loaded, assign=True)
    state = NetworkState(network)
    before = network(torch.ones(2))
    with state.restored():
        assert network.weight.is_meta
        assert torch.equal(network(torch.ones(2)), before)
    assert not network.weight.is_meta


def test_what_a_forward_in_inference_mode_leaves_is_seen_to_change() -> None:
    network: Any = nn.Linear(2, 2)
    with torch.inference_mode():
        network.table = torch.ones(2)
    before, same = state_of(network), state_of(network)
    with torch.inference_mode():
        network.table += 1
    spot = ("", "table")
    assert marks_agree(before[spot], same[spot]) and not marks_agree(before[spot], state_of(network)[spot])
