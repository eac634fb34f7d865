"""A program that takes a device and dtypes, and computes like denoisers and decoders; it may crash."""

from __future__ import annotations

import resource
import sys

import torch
from torch.nn import functional


def compute(device: str, dtype: torch.dtype) -> None:
    """Compute products of several sizes: small ones use other instructions than large ones."""

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape).to(device, dtype)

    for rows in (1, 64, 512):
        functional.linear(some(rows, 256), some(256, 256))
    heads, picture = some(1, 4, 64, 64), some(1, 32, 32, 32)
    functional.scaled_dot_product_attention(heads, heads, heads)
    functional.conv3d(some(1, 16, 4, 16, 16), some(16, 16, 3, 3, 3), padding=1)
    functional.interpolate(functional.silu(functional.group_norm(picture, 4)), scale_factor=2.0)
    functional.conv2d(picture, some(32, 32, 3, 3), padding=1).float().cpu()  # waits for the GPU


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with torch.inference_mode():
        for name in sys.argv[2:]:
            compute(sys.argv[1], {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name])
