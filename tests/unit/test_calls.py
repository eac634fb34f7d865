"""Which calls may share a forward, how they are joined, and how each row gets its own output back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from framefleet.pipeline.render.fused.calls import (
    Call,
    digest_of,
    is_private,
    parse_call,
)
from framefleet.pipeline.render.fused.compatibility import Company
from framefleet.pipeline.render.fused.concatenation import (
    Layout,
    hand_back,
    join_calls,
    layouts,
    part,
    row_slice,
)


def _call(*args: Any, **kwargs: Any) -> Call:
    return parse_call("unet", args, kwargs)


def _latents(rows: int = 1) -> Tensor:
    return torch.zeros(rows, 4, 2)


def _may_share(first: Call, second: Call) -> bool:
    return Company().groups([first, second]) == [[0, 1]]


def _joined(calls: list[Call]) -> tuple[Any, ...]:
    return join_calls(calls, calls[0].axes)[0]


def test_calls_with_other_values_of_batched_tensors_share() -> None:
    assert _may_share(_call(_latents(), torch.ones(1, 3)), _call(_latents() + 1, torch.zeros(1, 3)))


def test_timesteps_without_dimensions_are_expanded_to_each_rows_batch() -> None:
    calls = [_call(_latents(2), torch.tensor(9.0)), _call(_latents(2), torch.tensor(5.0))]
    assert _may_share(*calls)
    latents, timestep = _joined(calls)
    assert latents.shape == (4, 4, 2)
    assert timestep.tolist() == [9.0, 9.0, 5.0, 5.0]


def test_an_equal_table_without_a_batch_is_shared_as_it_is() -> None:
    table = torch.arange(5.0)
    calls = [_call(_latents(), table), _call(_latents(), table.clone())]
    assert _may_share(*calls)
    assert _joined(calls)[1] is table


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


def test_a_table_changed_in_place_is_looked_at_again() -> None:
    table, before = torch.arange(5.0), torch.arange(5.0)
    assert _may_share(_call(_latents(), before), _call(_latents(), table))
    table += 1
    assert not _may_share(_call(_latents(), before), _call(_latents(), table))


def test_arguments_that_cannot_be_compared_are_not_shared() -> None:
    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    argument = Unhashable()
    assert not _may_share(_call(_latents(), argument), _call(_latents(), argument))


@pytest.mark.parametrize("first", [[], ["text"], torch.tensor(3.0), "text"])
def test_a_call_whose_first_argument_brings_no_batch_is_never_shared(first: object) -> None:
    call = _call(first, torch.zeros(1, 2))
    assert call.batch == 0
    assert not _may_share(call, call)


def test_lists_of_the_rows_batch_are_joined_whatever_the_shapes_in_them() -> None:
    calls = [_call([torch.zeros(4, n)], torch.zeros(1), prompts=[[torch.zeros(n, 2)]]) for n in (3, 5)]
    args, kwargs = join_calls(calls, calls[0].axes)
    assert [tuple(row.shape) for row in args[0]] == [(4, 3), (4, 5)]
    assert [tuple(row[0].shape) for row in kwargs["prompts"]] == [(3, 2), (5, 2)]
    assert calls[0].batch == 1


def test_a_list_of_the_parts_of_one_row_is_not_taken_for_rows() -> None:
    call = _call([torch.zeros(1, 4), torch.zeros(1, 9)], torch.zeros(1), torch.zeros(1, 3))
    assert (call.batch, call.has_lists) == (1, False)


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
    left = part(joined, rows=2, like=layouts(_left_by_one_row(caches[0])))
    hand_back(calls[1], (left[1],))
    assert [layer.tolist() for layer in caches[1].layers] == [[[2.0, 2.0]], [[12.0, 12.0]]]


def _left_by_one_row(cache: Any) -> Any:
    left = copy.copy(cache)
    left.layers = [*cache.layers, cache.layers[0] + 10]
    return left


def test_an_object_that_holds_more_than_values_keeps_rows_apart() -> None:
    class Other:
        def __init__(self) -> None:
            self.generator = torch.Generator()

    assert not _may_share(_call(_latents(), Other()), _call(_latents(), Other()))


def test_a_call_without_arguments_can_be_described() -> None:
    assert _call().batch == 0


def test_each_row_gets_memory_of_its_own() -> None:
    fused = torch.arange(6.0).reshape(2, 3)
    first, second = part((fused,), rows=2, like=layouts((fused[:1],)))
    first[0].zero_()
    assert second[0].tolist() == [[3.0, 4.0, 5.0]]
    assert fused[0].tolist() == [0.0, 1.0, 2.0]


def test_a_rows_output_is_laid_out_as_if_it_had_run_alone() -> None:
    one_row = torch.arange(8.0).reshape(1, 4, 2).transpose(1, 2)
    fused = torch.cat([one_row, one_row + 10]).contiguous()
    parted = part(fused, rows=2, like=layouts(one_row))
    assert [own.stride()[1:] for own in parted] == [one_row.stride()[1:]] * 2
    assert torch.equal(parted[1], one_row + 10)


def test_outputs_without_the_rows_are_given_to_all() -> None:
    one_row = (torch.zeros(1, 3), "same", torch.zeros(5))
    parted = part((torch.zeros(2, 3), "same", torch.ones(5)), rows=2, like=layouts(one_row))
    assert parted[1][1] == "same"
    assert parted[1][2].tolist() == [1.0] * 5


def test_a_list_of_outputs_is_parted_by_its_length() -> None:
    outputs = [torch.full((row + 1,), float(row)) for row in range(4)]
    first, second = part((outputs,), rows=2, like=layouts((outputs[:2],)))
    assert [own.tolist() for own in first[0]] == [[0.0], [1.0, 1.0]]
    assert [len(own) for own in second[0]] == [3, 4]


def test_what_has_its_rows_in_another_dimension_is_parted_there() -> None:
    fused = torch.arange(12.0).reshape(3, 2, 2)  # (tokens, rows, width)
    parted = part(fused, rows=2, like=layouts(fused[:, :1].contiguous()))
    assert torch.equal(parted[1], fused[:, 1:])


def test_an_expanded_tensor_can_be_sliced() -> None:
    expanded = torch.arange(2.0).reshape(2, 1, 1).expand(2, 4, 3)
    own = row_slice(expanded, 1, 2, Layout.of(expanded[:1]))
    assert torch.equal(own, expanded[1:])


def test_strides_matter_only_where_a_row_has_more_than_one_value() -> None:
    layout = Layout.of(torch.zeros(1, 4, 2))
    assert layout is not None
    assert layout.fits(torch.zeros(8, 4, 2))
    assert not layout.fits(torch.zeros(8, 2, 4).transpose(1, 2))


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


def test_tables_that_a_recipe_makes_in_inference_mode_are_compared_by_value() -> None:
    with torch.inference_mode():
        table, equal, other = torch.arange(5.0), torch.arange(5.0), torch.zeros(5)
    assert _may_share(_call(_latents(), table), _call(_latents(), equal))
    assert not _may_share(_call(_latents(), table), _call(_latents(), other))
    with torch.inference_mode():
        equal += 1
    assert not _may_share(_call(_latents(), table), _call(_latents(), equal))
