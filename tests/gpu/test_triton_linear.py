"""Linear layers by Triton: torch's values, and each row's bits whatever its company.

Runs on a CPU too where Triton is installed, with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or Triton's interpreter", allow_module_level=True)

from framefleet.pipeline.model.triton_linear import TritonLinear, linear, use_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The interpreter multiplies bf16 as if its bits were integers.
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()
MOST = 8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "width", "columns"),
    [(5, 40, 24), (130, 200, 136), (1, 256, 64)],
    ids=["small", "odd", "token"],
)
def test_a_row_has_its_bits_in_any_company(tokens: int, width: int, columns: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(width, columns).to(DEVICE, dtype)
    x = torch.randn(MOST, tokens, width).to(DEVICE, dtype)
    with torch.no_grad():
        alone = torch.cat([linear(row[None], layer.weight, layer.bias) for row in x])
        for size in range(1, MOST + 1):
            assert torch.equal(linear(x[:size], layer.weight, layer.bias), alone[:size])
        torch.testing.assert_close(alone, layer(x))


def test_every_plain_linear_layer_of_a_network_is_replaced_and_keeps_its_weights() -> None:
    network = nn.Sequential(nn.Linear(16, 8, bias=False), nn.SiLU(), nn.Linear(8, 4)).to(DEVICE)
    weights = list(network.parameters())
    x = torch.randn(3, 16, device=DEVICE)
    before = network(x)
    use_triton(network)
    assert [type(part) for part in network] == [TritonLinear, nn.SiLU, TritonLinear]
    assert all(a is b for a, b in zip(network.parameters(), weights, strict=True))
    with torch.no_grad():
        torch.testing.assert_close(network(x), before)
