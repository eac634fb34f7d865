"""`framefleet model convert --base`: the dtype that single files are written in, and the room that takes."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file

import framefleet
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.headers import check_file_size
from framefleet.plugins.ports.conversion.convert import file_dtype
from tests.gguf_files import wan_weights, write_gguf
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (("I64", "F16"), torch.float16),
        (("BOOL", "U8", "BF16"), torch.bfloat16),
        (("F16", "F32"), torch.float32),
        (("F16", "BF16"), torch.float32),
        (("F64",), torch.float32),
        (("BF16", "F8_E4M3"), torch.float32),
        (("F16", "Q4_K"), torch.float32),
        (("BF16", "IQ4_XS"), torch.float32),
        (("I32", "Q8_0"), torch.float32),
    ],
)
def test_a_dtype_holds_all_weights_of_a_file(stored: tuple[str, ...], dtype: torch.dtype) -> None:
    for names in (stored, stored[::-1]):
        part: Any = SimpleNamespace(tensors=[SimpleNamespace(dtype=name) for name in names])
        assert file_dtype(part) is dtype


def test_room_is_counted_in_the_dtype_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(wan_weights(), tmp_path / "wan.gguf", gguf.GGMLQuantizationType.Q8_0)
    base = [path for path in tiny("wan").rglob("*") if path.is_file() and path.parent.name != "transformer"]
    size = sum(path.stat().st_size for path in [*base, tiny("wan") / "transformer" / "config.json"])
    size += 2 * sum(tensor.num_parameters for tensor in check_file_size(file))
    usage, free = shutil.disk_usage(tmp_path), size - 1
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage._replace(free=free))
    with pytest.raises(ModelError, match=r"out will take(.|\n)*hint: free space"):
        framefleet.convert_model(file, tmp_path / "out", base=str(tiny("wan")), dtype="bf16")
    free = size
    framefleet.convert_model(file, tmp_path / "out", base=str(tiny("wan")), dtype="bf16")
    weights = load_file(tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


@pytest.mark.parametrize("base", [None, "org/name"])
def test_a_dtype_that_is_none_is_refused_before_anything_is_read(base: str | None, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="dtype is 'float16'"):
        framefleet.convert_model("x.safetensors", tmp_path / "out", base=base, dtype="float16")
