"""Methods are wrapped for a while, and nothing stays behind."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from framefleet.pipeline.hooks.intercept import intercept


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
