"""Weights as publishers have them in single files, and GGUF files of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from diffusers import WanTransformer3DModel
from torch import Tensor

from tests import original_layouts
from tests.tiny import tiny


def write_gguf(weights: Mapping[str, Tensor], path: Path, kind: gguf.GGMLQuantizationType | None) -> Path:
    """Write weights; kind: of matrices that its blocks divide; None: nothing is packed."""
    writer = gguf.GGUFWriter(str(path), "wan")
    writer.add_array("tokens", ["a", "bc"])  # a list, which readers pass over
    for name, value in weights.items():
        values = value.float().numpy()
        if kind is not None and values.ndim == 2 and values.shape[-1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def wan_weights() -> dict[str, Tensor]:
    """Return the tiny Wan's transformer under its publisher's names."""
    transformer = WanTransformer3DModel.from_pretrained(tiny("wan"), subfolder="transformer")
    names = original_layouts.wan(transformer)
    return {name.removeprefix("model.diffusion_model."): value for name, value in names.items()}
