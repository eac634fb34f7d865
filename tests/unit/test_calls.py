"""Which calls may share a forward, how they are taken apart and joined, and how each row gets its output."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections import OrderedDict
from contextlib import nullcontext
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from framefleet.pipeline.hooks import intercept as compiled_calls
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.render.fused.calls import Call, digest_of, is_private, parse_call
from framefleet.pipeline.render.fused.compatibility import Company
from framefleet.pipeline.render.fused.concatenation import hand_back, join_calls, layouts, part


def _call(*args: Any, **kwargs: Any) -> Call:
    return parse_call("unet", args, kwargs)


def _latents(rows: int = 1) -> Tensor:
    return torch.zeros(rows, 4, 2)


def _may_share(first: Call, second: Call) -> bool:
    return Company().groups([first, second]) == [[0, 1]]


def _joined(calls: list[Call]) -> tuple[Any, ...]:
    return join_calls(calls, calls[0].axes)[0]


@pytest.mark.parametrize(
    "other",
    [
        _call(_latents(2), torch.arange(5.0), scale=1.0),
        _call(_latents().half(), torch.arange(5.0), scale=1.0),
        _call(_latents().transpose(1, 2).contiguous().transpose(1, 2), torch.arange(5.0), scale=1.0),
        _call(_latents(), torch.arange(5.0) + 1, scale=1.0),
        _call(_latents(), torch.arange(5.0), scale=2.0),
        _call(_latents(), torch.arange(5.0), scale=1),
        _call(_latents(), torch.arange(5.0), scale=True),
        _call(_latents(), torch.arange(5.0), size=1.0),
        parse_call("transformer", (_latents(), torch.arange(5.0)), {"scale": 1.0}),
    ],
    ids=["batch", "dtype", "strides", "table", "number", "type", "flag", "name", "module"],
)
def test_calls_that_differ_in_more_than_their_rows_do_not_share(other: Call) -> None:
    assert not _may_share(_call(_latents(), torch.arange(5.0), scale=1.0), other)


def test_generators_are_joined_to_a_list_of_copies_that_draw_what_each_row_would() -> None:
    own = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    calls = [_call(_latents(), generator) for generator in own]
    assert _may_share(*calls)
    _, generators = _joined(calls)
    drawn = [torch.rand(1, generator=generator) for generator in generators]
    assert drawn == [torch.rand(1, generator=generator) for generator in own]


@pytest.mark.parametrize("mode", [nullcontext, torch.inference_mode])
def test_a_table_is_compared_by_value_and_again_when_it_changed_in_place(mode: Any) -> None:
    with mode():
        table, before, other = torch.arange(5.0), torch.arange(5.0), torch.zeros(5)
    assert _may_share(_call(_latents(), before), _call(_latents(), table))
    assert not _may_share(_call(_latents(), before), _call(_latents(), other))
    with mode():
        table += 1
    assert not _may_share(_call(_latents(), before), _call(_latents(), table))


def test_arguments_that_cannot_be_compared_are_not_shared() -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    class Drawing:  # holds more than values
        def __init__(self) -> None:
            self.generator = torch.Generator()

    argument = Unhashable()
    for first, second in ((argument, argument), (Drawing(), Drawing())):
        assert not _may_share(_call(_latents(), first), _call(_latents(), second))


@pytest.mark.parametrize("args", [(first, torch.zeros(1, 2)) for first in ([], ["text"], torch.tensor(3.0))])
def test_a_call_whose_first_argument_brings_no_batch_is_never_shared(args: tuple[object, ...]) -> None:
    assert _call().batch == _call(*args).batch == 0
    assert not _may_share(_call(*args), _call(*args))


def test_lists_of_the_rows_batch_are_joined_whatever_the_shapes_in_them() -> None:
    calls = [_call([torch.zeros(4, n)], torch.zeros(1), prompts=[[torch.zeros(n, 2)]]) for n in (3, 5)]
    args, kwargs = join_calls(calls, calls[0].axes)
    assert [tuple(row.shape) for row in args[0]] == [(4, 3), (4, 5)]
    assert [tuple(row[0].shape) for row in kwargs["prompts"]] == [(3, 2), (5, 2)]
    assert calls[0].batch == 1
    parts_of_one = _call([torch.zeros(1, 4), torch.zeros(1, 9)], torch.zeros(1), torch.zeros(1, 3))
    assert (parts_of_one.batch, parts_of_one.has_lists) == (1, False)


def test_an_object_that_only_holds_tensors_is_joined_and_handed_back_as_it_was_left() -> None:
    class Cache:
        def __init__(self, value: float) -> None:
            self.layers, self.mode = [torch.full((1, 2), value)], "read"

    caches = [Cache(1.0), Cache(2.0)]
    calls = [_call(_latents(), cache) for cache in caches]
    assert _may_share(*calls)
    _, joined = _joined(calls)
    assert joined.layers[0].tolist() == [[1.0, 1.0], [2.0, 2.0]]
    joined.layers.append(joined.layers[0] + 10)
    left_by_one_row = copy.copy(caches[0])
    left_by_one_row.layers = [*caches[0].layers, caches[0].layers[0] + 10]
    left = part(joined, rows=2, like=layouts(left_by_one_row))
    hand_back(calls[1], (left[1],))
    assert [layer.tolist() for layer in caches[1].layers] == [[[2.0, 2.0]], [[12.0, 12.0]]]


def test_outputs_are_parted_where_their_rows_are_and_given_to_all_where_they_have_none() -> None:
    fused = torch.arange(12.0).reshape(3, 2, 2)  # (tokens, rows, width)
    outputs = [torch.full((row + 1,), float(row)) for row in range(4)]
    one_row = (torch.zeros(1, 3), "same", torch.zeros(5), fused[:, :1].contiguous(), outputs[:2])
    whole = (torch.arange(6.0).reshape(2, 3), "same", torch.ones(5), fused, outputs)
    first, second = part(whole, rows=2, like=layouts(one_row))
    first[0].zero_()  # its own memory
    assert second[0].tolist() == [[3.0, 4.0, 5.0]] and whole[0].tolist()[0] == [0.0, 1.0, 2.0]
    assert (second[1], second[2].tolist()) == ("same", [1.0] * 5)
    assert torch.equal(second[3], fused[:, 1:])
    assert [own.tolist() for own in first[4]] == [[0.0], [1.0, 1.0]]
    assert [len(own) for own in second[4]] == [3, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.complex64])
def test_a_digest_depends_on_values_shape_and_dtype_but_not_on_strides(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[1, 0, 1], [0, 0, 1]]).to(dtype)
    assert digest_of(tensor) == digest_of(tensor.t().contiguous().t())
    assert digest_of(tensor) != digest_of(tensor.reshape(3, 2))
    assert digest_of(tensor) != digest_of(torch.ones_like(tensor))
    assert digest_of(tensor) != digest_of(tensor.to(torch.complex128))


@pytest.mark.parametrize(
    "mode", [torch.enable_grad, torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)]
)
def test_code_that_switches_a_mode_of_the_thread_is_private(mode: Any) -> None:
    with torch.no_grad():
        assert not is_private()
        with mode():
            assert is_private()


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


@pytest.mark.parametrize("is_renamed", [True, False])
def test_calls_run_with_and_without_the_names(is_renamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = compiled_calls
    if is_renamed:
        monkeypatch.setitem(sys.modules, "torch._C._dynamo.eval_frame", ModuleType("eval_frame"))
        spec = importlib.util.spec_from_file_location("renamed", compiled_calls.__file__)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    assert module.HAS_HOOK is not is_renamed
    assert not module.is_compiled_call()
    added = module.left_to_python(lambda a, b: a + b)
    assert added(1, 2) == 3
