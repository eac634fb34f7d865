"""What rows change in networks is found, named and undone, and what one held at one time comes back."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.network_state import NetworkState, marks_agree, state_of
from framefleet.pipeline.model.snapshot import Loaded


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


class Layers(nn.Module):
    """Two layers, and a method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x))

    def decode(self, x: Any) -> Any:
        return x


class Doubled(nn.Module):
    """A parametrization."""

    def forward(self, weight: Any) -> Any:
        return 2 * weight


def loaded_with(unet: nn.Module) -> Loaded:
    model: Any = SimpleNamespace(pipe=SimpleNamespace(unet=unet), networks=lambda: {"unet": unet})
    return Loaded(model, {})


def setting(path: str, value: Any) -> Callable[[Any], None]:
    """Return what sets an attribute of a network."""
    module, _, name = path.rpartition(".")
    return lambda unet: setattr(unet.get_submodule(module), name, value)


# What a row does, and a part of what is said of it. `unet` is the network.
CHANGES: list[tuple[Callable[[Any], Any], str]] = [
    (setting("first", nn.Linear(3, 3)), "unet.first"),
    (lambda unet: unet.add_module("third", nn.Linear(3, 3)), "unet.third"),
    (setting("first.weight", nn.Parameter(torch.zeros(3, 3))), "unet.first.weight"),
    (lambda unet: unet.first.register_parameter("bias", None), "unet.first.bias"),
    (lambda unet: parametrize.register_parametrization(unet.first, "weight", Doubled()), "unet.first"),
    (lambda unet: unet.first.register_forward_hook(lambda *_: None), "the hooks of unet.first"),
    (lambda unet: unet.second.register_forward_pre_hook(lambda *_: None), "the hooks of unet.second"),
    (lambda unet: unet.train(), "the class or mode of unet"),
    (setting("first.__class__", nn.Identity), "the class or mode of unet.first"),
    (setting("first.forward", lambda x: x), "the forward of unet.first"),
    (setting("decode", lambda x: 2 * x), "unet.decode"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_what_is_changed_is_named_and_undone(change: Callable[[Any], Any], said: str) -> None:
    unet, x = Layers().eval(), torch.ones(1, 3)
    loaded, before = loaded_with(unet), unet(x)
    assert loaded.difference() is None
    change(unet)
    try:
        assert said in (loaded.difference() or "")
    finally:
        loaded.restore()
    assert loaded.difference() is None
    assert torch.equal(unet(x), before) and torch.equal(unet.decode(x), x)


def test_what_is_put_around_calls_by_us_and_hooks_of_libraries_are_no_change() -> None:
    unet = Layers().eval()
    loaded = loaded_with(unet)

    def theirs(*_: Any) -> None:
        """Stands for a hook with which transformers records what layers return."""

    theirs.__module__ = "transformers.utils.output_capturing"
    unet.first.register_forward_hook(theirs)
    with (
        intercept({"unet": unet}, lambda name, forward, x: forward(x)),
        intercept({"unet": unet}, lambda name, decode, x: decode(x), method="decode"),
    ):
        assert loaded.difference() is None


def _doubled(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return 2 * original(*args, **kwargs)


def test_calling_the_module_goes_through_the_function_while_a_block_runs() -> None:
    module = nn.Identity()
    before, signature = dict(vars(module)), inspect.signature(module.forward)
    with intercept({"it": module}, _doubled):
        assert module(torch.tensor(3)) == 6
        with intercept({"it": module}, _doubled):  # blocks nest
            assert module(torch.tensor(3)) == 12 and inspect.signature(module.forward) == signature
    assert module(torch.tensor(3)) == 3 and vars(module) == before


def test_nothing_stays_on_the_module_after_an_exception() -> None:
    module = nn.Identity()
    before = dict(vars(module))
    with pytest.raises(ValueError, match="stop"), intercept({"it": module, "again": module}, _doubled):
        raise ValueError("stop")
    assert vars(module) == before


def test_a_forward_that_was_put_on_the_instance_comes_back() -> None:
    module = nn.Identity()
    module.forward = hooked = lambda value: value + 1  # type: ignore[method-assign]  # as accelerate does
    with intercept({"it": module}, _doubled):
        assert module(3) == 8
    assert vars(module)["forward"] is hooked


def test_an_object_without_the_method_leaves_the_others_clean() -> None:
    module = nn.Identity()
    with pytest.raises(AttributeError), intercept({"it": module, "none": object()}, _doubled):
        pass
    assert "forward" not in vars(module)


def test_any_method_of_any_object_can_be_wrapped() -> None:
    class Decoder:
        def decode(self, value: int) -> int:
            return value

    decoder = Decoder()
    with intercept({"vae": decoder}, _doubled, method="decode"):
        assert decoder.decode(4) == 8
    assert decoder.decode(4) == 4


def test_a_copy_that_is_made_meanwhile_is_an_ordinary_one() -> None:
    module = nn.Linear(2, 2)
    with intercept({"it": module}, _doubled), intercept({"it": module}, _doubled):
        twins = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    for twin in twins:
        with torch.no_grad():
            twin.weight.fill_(1.0)
            twin.bias.fill_(0.0)
        assert twin(torch.ones(1, 2)).tolist() == [[2.0, 2.0]]
