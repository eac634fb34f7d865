"""Joining rows and parting them again gives back every row, whatever its shape, type and layout."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, strategies as st
from torch import Tensor

from framefleet.pipeline.render.fused.calls import parse_call
from framefleet.pipeline.render.fused.concatenation import join_calls, layouts, part

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.complex64)


@st.composite
def rows_of_one_kind(draw: st.DrawFn) -> list[Tensor]:
    """Tensors of equal shape, dtype and strides, with values of their own."""
    batch = draw(st.integers(1, 3))
    inner = draw(st.lists(st.integers(1, 4), max_size=4))
    order = draw(st.permutations(range(len(inner) + 1)))
    holes = draw(st.booleans())
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    return [_tensor([batch, *inner], order, holes, dtype, generator) for _ in range(draw(st.integers(1, 5)))]


def _tensor(
    shape: list[int], order: list[int], holes: bool, dtype: torch.dtype, generator: torch.Generator
) -> Tensor:
    stored = [shape[axis] for axis in order]
    values = torch.randint(0, 100, [*stored[:-1], stored[-1] + holes], generator=generator).to(dtype)
    back = [order.index(axis) for axis in range(len(shape))]
    return values[..., : stored[-1]].permute(back)


def _strides(tensor: Tensor) -> list[int]:
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


@given(rows_of_one_kind())
def test_every_row_comes_back_equal_and_in_its_own_layout(rows: list[Tensor]) -> None:
    calls = [parse_call("unet", (row,), {"return_dict": False}) for row in rows]
    assert len({call.shape for call in calls}) == 1
    (joined,), options = join_calls(calls, calls[0].axes)
    assert options == {"return_dict": False}
    assert joined.shape[0] == len(rows) * calls[0].batch
    parted = part((joined,), rows=len(rows), like=layouts((rows[0],)))
    for (own,), row in zip(parted, rows, strict=True):
        assert own.dtype == row.dtype
        assert torch.equal(own, row)
        assert _strides(own) == _strides(row)


@given(rows_of_one_kind(), st.data())
def test_nested_arguments_are_joined_leaf_by_leaf(rows: list[Tensor], data: st.DataObject) -> None:
    times = [data.draw(st.floats(0, 1000, width=32)) for _ in rows]

    def arguments(row: Tensor, time: float) -> dict[str, Any]:
        return {"hidden_states": row, "timestep": torch.tensor(time), "extra": {"pair": (row, None)}}

    calls = [parse_call("unet", (), arguments(row, time)) for row, time in zip(rows, times, strict=True)]
    _, joined = join_calls(calls, calls[0].axes)
    assert torch.equal(joined["hidden_states"], torch.cat(rows))
    assert torch.equal(joined["extra"]["pair"][0], torch.cat(rows))
    assert joined["extra"]["pair"][1] is None
    assert joined["timestep"].tolist() == [time for time in times for _ in range(calls[0].batch)]


@given(rows_of_one_kind(), rows_of_one_kind())
def test_rows_share_only_if_they_look_alike(rows: list[Tensor], others: list[Tensor]) -> None:
    first, other = rows[0], others[0]
    alike = first.shape == other.shape and first.dtype == other.dtype and _strides(first) == _strides(other)
    same = parse_call("unet", (first,), {}).shape == parse_call("unet", (other,), {}).shape
    assert same == alike
