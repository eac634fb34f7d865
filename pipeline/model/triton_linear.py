"""Linear layers as a Triton kernel that sums each row of its input in the same order, whatever the batch.

One program sums each output tile over the layer's width, in steps of a fixed length. Tile sizes depend only
on the weight; the number of rows only changes how many tiles there are. It is slower than cuBLAS. Not
covered: gradients and quantised weights.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

# Usual for half precision on Ampere and later; a GPU with too little shared memory refuses to launch.
TILE_ROWS = 128
TILE_COLUMNS = 128
STEP_BYTES = 128
MIN_STEP = 16  # the least that `tl.dot` takes
TILES_IN_TURN = 8  # rows of tiles that share columns of the weight while these are cached
WARPS = 8


def use_triton(network: nn.Module) -> None:
    """Make every linear layer of a network use this kernel."""
    for layer in network.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = TritonLinear


class TritonLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `x @ weight.T + bias` in the dtype of x, summed in fp32. x: (..., K); weight: (N, K)."""
    rows = x.reshape(-1, x.shape[-1])  # (M, K)
    (num_rows, width), num_columns = rows.shape, weight.shape[0]
    output = x.new_empty((num_rows, num_columns))
    num_tiles = triton.cdiv(num_rows, TILE_ROWS) * triton.cdiv(num_columns, TILE_COLUMNS)
    step = min(STEP_BYTES // x.element_size(), max(MIN_STEP, triton.next_power_of_2(width)))
    tensors = (rows, weight, weight if bias is None else bias, output)
    numbers = (num_rows, num_columns, width, *rows.stride(), *weight.stride())
    tiles = {"tile_m": TILE_ROWS, "tile_n": TILE_COLUMNS, "step": step, "in_turn": TILES_IN_TURN}
    with torch.cuda.device_of(x):
        _product[(num_tiles,)](*tensors, *numbers, has_bias=bias is not None, **tiles, num_warps=WARPS)
    return output.reshape(*x.shape[:-1], num_columns)


@triton.jit(do_not_specialize=["num_rows"])  # one kernel for any number of rows
def _product(
    x,  # (M, K)
    weight,  # (N, K)
    bias,  # (N,)
    output,  # (M, N), contiguous
    num_rows,
    num_columns,
    width,
    x_row,
    x_column,
    weight_row,
    weight_column,
    has_bias: tl.constexpr,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    step: tl.constexpr,
    in_turn: tl.constexpr,
):
    tiles_n = tl.cdiv(num_columns, tile_n)
    number = tl.program_id(0)
    first = number // (in_turn * tiles_n) * in_turn
    height = min(tl.cdiv(num_rows, tile_m) - first, in_turn)
    within = number % (in_turn * tiles_n)
    m = (first + within % height) * tile_m + tl.arange(0, tile_m)
    n = within // height * tile_n + tl.arange(0, tile_n)
    is_row, is_column = m < num_rows, n < num_columns
    k = tl.arange(0, step)
    # In 64 bits, because eight clips of 480p have more than 2**31 values.
    x_at = x + m.to(tl.int64)[:, None] * x_row + k[None, :] * x_column
    weight_at = weight + n.to(tl.int64)[None, :] * weight_row + k[:, None] * weight_column
    total = tl.zeros((tile_m, tile_n), dtype=tl.float32)
    for done in range(0, width, step):
        is_inside = k < width - done
        left = tl.load(x_at, mask=is_row[:, None] & is_inside[None, :], other=0.0)
        right = tl.load(weight_at, mask=is_inside[:, None] & is_column[None, :], other=0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
        x_at += step * x_column
        weight_at += step * weight_column
    if has_bias:
        total += tl.load(bias + n, mask=is_column, other=0.0).to(tl.float32)[None, :]
    at = output + m.to(tl.int64)[:, None] * num_columns + n[None, :]
    tl.store(at, total.to(output.dtype.element_ty), mask=is_row[:, None] & is_column[None, :])
