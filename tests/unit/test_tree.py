"""Arguments and outputs of modules are taken apart and put together again."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import pytest
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from transformers.modeling_outputs import BaseModelOutputWithPooling

from framefleet.pipeline.hooks.tree import flatten, unflatten


class Pair(NamedTuple):
    first: int
    second: list[int]


@pytest.mark.parametrize(
    "value",
    [
        7,
        None,
        (),
        [1, (2, [3, None])],
        {"a": 1, "b": {"c": (2,)}},
        {1: "number as key", (2, 3): "pair as key"},
        OrderedDict(z=1, a=2),
        Pair(1, [2, 3]),
        ((1, {"scale": 0.5}), {"hidden_states": 1, "return_dict": False}),
    ],
)
def test_what_is_flattened_comes_back_equal_and_of_its_type(value: object) -> None:
    leaves, structure = flatten(value)
    again = unflatten(structure, leaves)
    assert again == value
    assert type(again) is type(value)


def test_output_classes_come_back_with_the_fields_that_were_set() -> None:
    for output, leaves in (
        (BaseModelOutputWithPooling(last_hidden_state=1, hidden_states=(2, 3)), [1, 2, 3]),
        (Transformer2DModelOutput(sample=5), [5]),
    ):
        found, structure = flatten(output)
        again = unflatten(structure, found)
        assert found == leaves and again == output and type(again) is type(output)


@pytest.mark.parametrize("other", [{"b": (1, 2)}, {"a": [1, 2]}, {"a": (1, 2, 3)}, {"a": 1}])
def test_other_nesting_gives_another_structure(other: object) -> None:
    assert flatten({"a": (1, 2)})[1] == flatten({"a": (3, object())})[1] != flatten(other)[1]
