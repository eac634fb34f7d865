"""What rows change in networks, in the code of classes and in torch's modes is found, named and undone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.snapshot import Pristine


class Network(nn.Module):
    """Two layers, and a method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x))

    def decode(self, x: Any) -> Any:
        return x


class Scheduler:
    """What a recipe may patch."""

    def step(self, x: Any) -> Any:
        return x


class Pipe:
    """Calls both."""

    def __init__(self) -> None:
        self.components = {"unet": Network().eval(), "scheduler": Scheduler()}


class Doubled(nn.Module):
    """A parametrization."""

    def forward(self, weight: Any) -> Any:
        return 2 * weight


def _in_place(unet: Any) -> None:
    with torch.no_grad():
        unet.first.weight.mul_(2)


# What a row does, and a part of what is said of it. `unet` is the network.
CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a layer is replaced": (lambda unet: setattr(unet, "first", nn.Linear(3, 3)), "unet.first"),
    "a layer is added": (lambda unet: unet.add_module("third", nn.Linear(3, 3)), "unet.third"),
    "a weight is replaced": (
        lambda unet: setattr(unet.first, "weight", nn.Parameter(torch.zeros(3, 3))),
        "unet.first.weight",
    ),
    "a weight is taken away": (lambda unet: unet.first.register_parameter("bias", None), "unet.first.bias"),
    "a layer is parametrized": (
        lambda unet: parametrize.register_parametrization(unet.first, "weight", Doubled()),
        "unet.first",
    ),
    "a weight wants no gradients": (lambda unet: unet.requires_grad_(False), "want gradients"),
    "a hook": (lambda unet: unet.first.register_forward_hook(lambda *_: None), "the hooks of unet.first"),
    "a hook before": (
        lambda unet: unet.second.register_forward_pre_hook(lambda *_: None),
        "the hooks of unet.second",
    ),
    "training": (lambda unet: unet.train(), "the class or mode of unet"),
    "a class": (
        lambda unet: setattr(unet.first, "__class__", nn.Identity),
        "the class or mode of unet.first",
    ),
    "a forward": (lambda unet: setattr(unet.first, "forward", lambda x: x), "the forward of unet.first"),
    "a method": (lambda unet: setattr(unet, "decode", lambda x: 2 * x), "unet.decode"),
    "a method of a class": (
        lambda unet: setattr(Scheduler, "step", lambda self, x: 2 * x),
        "Scheduler.step",
    ),
    "a method that hides torch's": (
        lambda unet: setattr(Network, "__call__", lambda self, x: x),
        "Network.__call__",
    ),
    "a function of torch": (
        lambda unet: setattr(functional, "linear", functools.partial(functional.linear)),
        "torch.nn.functional.linear",
    ),
    "the default dtype": (lambda unet: torch.set_default_dtype(torch.float64), "the default dtype"),
    "the kernels of attention": (lambda unet: torch.backends.cuda.enable_flash_sdp(False), "flash attention"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_is_named_and_undone(change: str) -> None:
    pipe = Pipe()
    unet, x = pipe.components["unet"], torch.ones(1, 3)
    assert isinstance(unet, Network)
    pristine, before = Pristine(pipe, {"unet": unet}), unet(x)
    pristine.sum_weights()
    assert pristine.difference() is None
    act, said = CHANGES[change]
    act(unet)
    try:
        assert said in (pristine.difference() or "")
    finally:
        assert pristine.restore(twins=SimpleNamespace()) == []
    assert pristine.difference() is None
    assert torch.equal(unet(x), before) and torch.equal(unet.decode(x), x)


def test_values_that_were_overwritten_are_named_with_their_network_until_they_are_settled() -> None:
    pipe = Pipe()
    unet = pipe.components["unet"]
    assert isinstance(unet, Network)
    pristine = Pristine(pipe, {"unet": unet})
    _in_place(unet)
    assert pristine.difference() == "the weight unet.first.weight"
    assert pristine.restore(twins=SimpleNamespace()) == ["unet"]
    _in_place(unet)
    pristine.settle("unet")
    assert pristine.difference() is None


def test_values_that_change_through_data_show_in_sums_alone() -> None:
    pipe = Pipe()
    unet = pipe.components["unet"]
    assert isinstance(unet, Network)
    unet.second.bias.data.fill_(2.0)
    pristine = Pristine(pipe, {"unet": unet})
    pristine.sum_weights()
    unet.second.bias.data += 1.0
    assert pristine.difference() is None
    assert pristine.difference(values=True) == "the values of unet.second.bias"
    assert not pristine.is_untouched("unet", values=True)
    assert pristine.restore(twins=SimpleNamespace(), values=True) == ["unet"]
    unet.second.bias.data -= 1.0
    assert pristine.difference(values=True) is None
    unet.second.bias.data = torch.zeros(3)
    assert pristine.difference(values=True) == "the values of unet.second.bias"


def test_weights_that_a_pipeline_casts_and_casts_back_are_no_change() -> None:
    pipe = Pipe()
    unet = pipe.components["unet"]
    assert isinstance(unet, Network)
    pristine = Pristine(pipe, {"unet": unet.half()})
    pristine.sum_weights()
    unet.float().half()  # as decoding in fp32 does
    assert pristine.difference(values=True) is None


def test_what_is_put_around_calls_by_us_and_hooks_of_libraries_are_no_change() -> None:
    pipe = Pipe()
    unet = pipe.components["unet"]
    assert isinstance(unet, Network)
    pristine = Pristine(pipe, {"unet": unet})

    def theirs(*_: Any) -> None:
        """Stands for a hook with which transformers records what layers return."""

    theirs.__module__ = "transformers.utils.output_capturing"
    unet.first.register_forward_hook(theirs)
    with (
        intercept({"unet": unet}, lambda name, forward, x: forward(x)),
        intercept({"unet": unet}, lambda name, decode, x: decode(x), method="decode"),
    ):
        assert pristine.difference() is None


def test_weights_that_are_moved_in_between_are_not_compared() -> None:
    pipe = Pipe()
    unet = pipe.components["unet"]
    assert isinstance(unet, Network)
    pristine = Pristine(pipe, {"unet": unet}, moving=["unet"])
    _in_place(unet)
    unet.second.weight.data = torch.zeros(3, 3)
    assert pristine.difference() is None
    assert pristine.restore(twins=SimpleNamespace()) == []
