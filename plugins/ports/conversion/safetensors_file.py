"""In: names, shapes and dtypes, then the tensors one by one. Out: a safetensors file; one tensor in memory.

safetensors' own `save_file` takes all tensors at once, too much where a checkpoint has 24 GB.
The format: 8 bytes of length, JSON, then the values (github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
WRITTEN = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8  # of the values, by spaces behind the JSON: safetensors itself writes them so


def write_safetensors(path: Path, shapes: Mapping[str, Tensor], read: Callable[[str], Tensor]) -> None:
    """Write the tensors that `read` gives; `shapes` has them on the meta device, for the header."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers refuses files without it
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + shape.numel() * shape.element_size()
        header[name] = {
            "dtype": WRITTEN[shape.dtype],
            "shape": list(shape.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            tensor = read(name)
            assert (tensor.shape, tensor.dtype) == (shape.shape, shape.dtype), name
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
