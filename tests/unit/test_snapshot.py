"""What rows change in the modules of networks is found, named and undone."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.snapshot import Loaded


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
    unet, x = Network().eval(), torch.ones(1, 3)
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
    unet = Network().eval()
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
