"""What a recipe's module keeps: additions are remembered, changes are seen, and all is put back."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from framefleet.pipeline.render.process_state import ModuleState

SOURCE = """
import functools, random
import numpy as np, torch

known, seen, model, count = {}, [], None, 0
table = np.arange(3)
drawn = random.Random(1)

class Kept:
    factor = 1
    last = {"row": 1}

def recipe(pipe, request, rows=[], *, names={}):
    return rows

@functools.lru_cache
def ones(size):
    return torch.ones(size)

def outer():
    inner_rows = [1]
    def inner():
        return inner_rows
    return inner

inner = outer()
"""


@pytest.fixture
def module() -> Iterator[Any]:
    module = types.ModuleType("a_recipe")
    sys.modules["a_recipe"] = module
    exec(SOURCE, vars(module))
    yield module
    del sys.modules["a_recipe"]


def _set(target: Any, name: str, value: Any) -> None:
    setattr(target, name, value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("seen of a_recipe", lambda module: module.seen.append(1)),
        ("count of a_recipe", lambda module: _set(module, "count", 1)),
        ("table of a_recipe", lambda module: module.table.fill(5)),
        ("drawn of a_recipe", lambda module: module.drawn.random()),
        ("last of Kept", lambda module: module.Kept.last.update(row=2)),
        ("factor of Kept", lambda module: _set(module.Kept, "factor", 2)),
        ("__defaults__ of recipe", lambda module: module.recipe(None, None).append(1)),
        ("cell_contents of a closure", lambda module: module.inner().append(1)),
    ],
)
def test_a_change_is_seen_and_put_back(module: Any, name: str, change: Any) -> None:
    state = ModuleState(module.recipe)
    loaded = state.now()
    assert state.changed_since(loaded) is None
    with state.as_loaded():
        change(module)
    assert state.changed_since(loaded) is None
    change(module)
    assert state.changed_since(loaded) == name
    state.restore()
    assert state.changed_since(loaded) is None


def test_what_is_remembered_under_a_new_name_is_no_change_until_that_is_changed(module: Any) -> None:
    state = ModuleState(module.recipe)
    before = state.now()
    module.known["a"] = torch.ones(2)
    module.ones(3)
    assert state.changed_since(before) is None
    before = state.now()
    module.known["b"] = torch.ones(2)
    assert state.changed_since(before) is None
    module.known["a"] += 1
    assert state.changed_since(before) == "known of a_recipe"


def test_a_cached_result_that_is_changed_in_place_is_seen(module: Any) -> None:
    state = ModuleState(module.recipe)
    module.ones(3)
    before = state.now()
    module.ones(3).mul_(2)
    assert state.changed_since(before) == "what ones remembers"


def test_a_plain_call_finds_nothing_remembered_and_leaves_it_to_others(module: Any) -> None:
    state = ModuleState(module.recipe)
    module.known["a"] = held = torch.ones(2)
    module.ones(3)
    with state.as_loaded():
        assert module.known == {}
        assert module.ones.cache_info().currsize == 0
        module.known["a"] = torch.zeros(2)
    assert module.known["a"] is held


def test_models_that_a_module_loaded_stay(module: Any) -> None:
    state = ModuleState(module.recipe)
    module.model = nn.Linear(2, 2)
    with state.as_loaded():
        assert isinstance(module.model, nn.Linear)
    state.restore()
    assert isinstance(module.model, nn.Linear)
