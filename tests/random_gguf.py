"""GGUF files with odd numbers in their headers, read by framefleet and by the package."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import gguf

from framefleet.pipeline.model.sources.headers import MAX_ENTRIES, check_file_size
from tools.fuzz import hostile

_KEYS = (b"a", b"b", b"c", b"d", b"e", b"", b"general.alignment")
_ODD_KEYS = (b"a", b"GGUF.version", b"\xff")  # there twice, of the package itself, not a text
_SIZES = {0: 1, 1: 1, 2: 2, 4: 4, 6: 4, 7: 1, 10: 8, 12: 8}  # of a number, by its type
_TEXT, _ARRAY, _NOBODY = 8, 9, 13
_LENGTHS = (*(0, 1, 2, 32, 256, 4096) * 5, MAX_ENTRIES + 1, 33_000_000)
# Of tensors: F32, F16, BF16, I8, Q4_0, Q8_0, Q4_K, and one that nobody knows.
_TYPES = (*(0, 1, 30, 24, 2, 8) * 4, 12, 99)
_SHAPES = (*((32,), (256, 2), (64, 3, 2)) * 4, (4,), (), (0,), (2**63, 2))
_ODD = 0.02  # of all numbers and names


def random_file(rng: Random) -> bytes:
    def name(usual: bytes) -> bytes:
        return _text(rng, rng.choice(_ODD_KEYS) if rng.random() < _ODD else usual)

    settings = [name(key) + _value(rng, key) for key in rng.sample(_KEYS, rng.randrange(4))]
    tensors, place = [], 0
    for key in rng.sample(_KEYS, rng.randrange(4)):
        shape, kind = rng.choice(_SHAPES), rng.choice(_TYPES)
        dimensions = struct.pack("<I", len(shape)) + b"".join(_number(rng, one) for one in shape)
        tensors.append(name(key) + dimensions + struct.pack("<I", kind) + _number(rng, place))
        place += 2048
    head = b"GGUF" + struct.pack("<I", rng.choice((*(2, 3) * 9, 1, 3 << 24)))
    counts = _number(rng, len(tensors)) + _number(rng, len(settings))
    content = head + counts + b"".join((*settings, *tensors)) + bytes(place + 256)
    return hostile.mutated_bytes(rng, content) if rng.random() < 0.1 else content


def _number(rng: Random, usual: int) -> bytes:
    return struct.pack("<Q", rng.choice(hostile.EDGES) if rng.random() < _ODD else usual)


def _text(rng: Random, content: bytes) -> bytes:
    return _number(rng, len(content)) + content


def _value(rng: Random, key: bytes) -> bytes:
    kind = rng.choice((*(*_SIZES, _TEXT, _ARRAY, _ARRAY) * 2, _NOBODY))
    if key == _KEYS[-1] and rng.random() < 0.8:
        kind = 4
    if kind == _TEXT:
        content = _text(rng, b"text")
    elif kind == _ARRAY:
        inner, length = rng.choice((*_SIZES, *(_TEXT,) * 4, _ARRAY)), rng.choice(_LENGTHS)
        each = bytes(8) if inner == _TEXT else bytes(_SIZES.get(inner, 4))
        content = struct.pack("<I", inner) + _number(rng, length) + each * min(length, 4_000_000)
    else:
        content = rng.choice((*(32, 64) * 3, 0, 1, 100, 255)).to_bytes(_SIZES.get(kind, 4), "little")
    return struct.pack("<I", kind) + content


def compare(path: Path) -> None:
    """Raise ModelError for a file that is refused, and AssertionError for one that is read otherwise."""
    own = {one.name: (one.dtype, one.shape, one.begin, one.end - one.begin) for one in check_file_size(path)}
    theirs = {
        one.name: (one.tensor_type.name, shape_of(one), int(one.data_offset), int(one.n_bytes))
        for one in gguf.GGUFReader(path).tensors
    }
    assert own == theirs, f"{own} is not {theirs}"


def shape_of(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape))
