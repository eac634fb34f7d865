"""Numeric references made by the original networks, which are not part of the repository.

They lie in `../shared/goldens` beside it, or where FRAMEFLEET_GOLDENS says; tests that need them are skipped
elsewhere, and the small references of our own making in `tests/references` stand in for them.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDENS = Path(os.environ.get("FRAMEFLEET_GOLDENS", Path(__file__).parents[2] / "shared" / "goldens"))
Shapes = dict[str, tuple[int, ...]]

needs_goldens = pytest.mark.skipif(
    not GOLDENS.is_dir(), reason=f"references of the original networks are not in {GOLDENS}"
)


def golden_tensors(name: str) -> dict[str, Tensor]:
    """Return inputs and outputs of an original network."""
    return load_file(GOLDENS / name / "io.safetensors")


def golden_config(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDENS / name / "config.json").read_text())
    return content


def golden_shapes(name: str) -> Shapes:
    """Return the names and shapes of an original network's tensors."""
    keys = json.loads((GOLDENS / name / "keys.json").read_text())
    return {key: tuple(shape) for key, shape in keys.items()}


def full_shapes(name: str) -> Shapes:
    """Return those of a network in its published size."""
    keys = json.loads(gzip.decompress((GOLDENS / "fullkeys" / f"{name}.json.gz").read_bytes()))
    return {key: tuple(shape) for key, (shape, _) in keys.items()}


def weights_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return the weights that the references were made with: each depends on its name and shape alone."""
    return {name: _weight(name, shape) for name, shape in shapes.items()}


def _weight(name: str, shape: tuple[int, ...]) -> Tensor:
    seed = zlib.crc32(name.encode()) & 0x7FFFFFFF
    drawn: Any = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        drawn = drawn / np.sqrt(float(np.prod(shape[1:])))
    elif name.endswith(("weight", "scale")):
        drawn = 1 + 0.1 * drawn
    else:
        drawn = 0.1 * drawn
    return torch.from_numpy(np.asarray(drawn).astype(np.float16)).float()
