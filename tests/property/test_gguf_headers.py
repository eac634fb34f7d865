"""Whatever the bytes of a GGUF file are, its header is read within bounds, or refused by name."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import gguf
import pytest
import torch
from hypothesis import given, settings, strategies as st

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.sources.headers import MAX_GGUF_HEADER_BYTES, check_file_size, read_gguf_header
from tests.gguf_files import write_gguf
from tests.long import examples
from tests.random_gguf import compare, random_file

Q8 = gguf.GGMLQuantizationType.Q8_0


def file_of(tensors: dict[str, tuple[int, ...]], *, is_packed: bool) -> bytes:
    with TemporaryDirectory() as folder:
        weights = {name: torch.ones(shape) for name, shape in tensors.items()}
        return write_gguf(weights, Path(folder, "x.gguf"), Q8 if is_packed else None).read_bytes()


SHAPES = {"blocks.0.weight": (4, 32), "blocks.0.bias": (4,), "patch.weight": (2, 3, 1, 2)}
FILE = file_of(SHAPES, is_packed=True)


def read(content: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    tensors, _ = read_gguf_header(lambda count: content[:count], "x.gguf", len(content))
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors}


@pytest.mark.parametrize("is_packed", [True, False])
def test_tensors_are_those_that_the_package_reads(is_packed: bool, tmp_path: Path) -> None:
    content = file_of(SHAPES, is_packed=is_packed)
    (tmp_path / "x.gguf").write_bytes(content)
    found = {one.name: (one.dtype, one.shape, one.begin) for one in check_file_size(tmp_path / "x.gguf")}
    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    expected = {
        one.name: (one.tensor_type.name, tuple(map(int, one.shape[::-1])), int(one.data_offset))
        for one in reader.tensors
    }
    assert found == expected


@given(
    changes=st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(0, 255)), min_size=1, max_size=8)
)
@settings(max_examples=examples(600), deadline=None)
def test_a_changed_file_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(FILE)
    for place, value in changes:
        content[place] = value
    try:
        assert all(isinstance(name, str) for name in read(bytes(content)))
    except ModelError as error:
        assert str(error).startswith(("x.gguf is not a GGUF file", f"x.gguf has {len(FILE)} bytes, but"))


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.long)])
def test_what_is_let_through_the_package_reads_as_the_same_tensors(count: int, tmp_path: Path) -> None:
    num_read = 0
    for seed in range(count):
        (tmp_path / "x.gguf").write_bytes(random_file(Random(seed)))
        with contextlib.suppress(ModelError):
            compare(tmp_path / "x.gguf")
            num_read += 1
    assert num_read > count / 10


@given(size=st.integers(0, len(FILE)))
@settings(max_examples=examples(200), deadline=None)
def test_a_file_that_ends_early_is_refused_or_has_its_whole_header(size: int) -> None:
    try:
        assert read(FILE[:size]) == read(FILE)
    except ModelError as error:
        assert "x.gguf" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<QQ", 2**62, 0),  # tensors without end
        struct.pack("<QQ", 0, 2**62),  # settings without end
        struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**62),  # a name without end
        struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 0, 2**40),  # an array of a terabyte
        struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 9, 1),  # an array of arrays
        struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 0, 900_000),  # more than any vocabulary
        struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 33_000_000),
        struct.pack("<QQ", 60_000, 0),  # tensors of nothing
    ],
)
def test_numbers_without_bounds_are_refused_before_they_cost_memory(body: bytes) -> None:
    content, asked = b"GGUF" + struct.pack("<I", 3) + body + bytes(2**20), []

    def counting(count: int) -> bytes:
        asked.append(count)
        return content[:count]

    with pytest.raises(ModelError, match="is not a GGUF file"):
        read_gguf_header(counting, "x.gguf", len(content))
    assert max(asked) <= MAX_GGUF_HEADER_BYTES
