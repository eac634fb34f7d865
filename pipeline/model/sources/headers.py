"""From the first bytes of a safetensors or GGUF file to its tensors.

safetensors: 8 bytes with the length, JSON, then the values. GGUF: settings, one entry for each tensor, then
the values (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The package `gguf` trusts every number
in a header, and makes an object for each value of the settings. So headers are read here, within bounds.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.json_text import parse_json

GGUF = ".gguf"
# A tensor takes a hundred bytes, and the largest models have some thousand tensors; safetensors itself allows
# 100 MB, which take gigabytes once they are parsed.
MAX_HEADER_BYTES = 16 * 2**20
# Of one value. Values of other types have at least one bit.
_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64},
    **{"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64},
}
# More than any tensor has. A product of millions of numbers takes minutes.
_MAX_DIMENSIONS, _MAX_NUMBER = 8, 2**63 - 1
HEAD_BYTES = 512  # enough to recognise all files in `foreign`
_AHEAD = 1 << 17  # the header of a thousand tensors
_AGAIN = "fetch it again"
_PAGES = (b"<!doctype", b"<html", b"<?xml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    name: str
    dtype: str  # in safetensors' spelling (F32, BF16)
    shape: tuple[int, ...]
    begin: int  # where its bytes are in the file
    end: int

    @property
    def num_parameters(self) -> int:
        return math.prod(self.shape)


Notes = dict[str, str]  # a file's metadata


def read_header(read: Callable[[int], bytes], where: str, size: int) -> tuple[list[Tensor], Notes]:
    """Return the tensors and the notes of a safetensors file.

    read: returns this many of the file's first bytes; called once for nearly all headers. size: of the file.
    Raises ModelError if it is not a safetensors file: if tensors overlap, leave gaps, or do not have the size
    of their shape; or if it is shorter or longer than its header says.
    """
    head = read(_AHEAD)
    try:
        (length,) = struct.unpack("<Q", head[:8])
        start = 8 + length
        if length > MAX_HEADER_BYTES:
            raise ValueError(length)
        header = parse_json((head if start <= len(head) else read(start))[8:start])
        notes = header.get("__metadata__", {})
        tensors = [_tensor(name, entry, start) for name, entry in header.items() if name != "__metadata__"]
        place = start
        for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
            bits, size_bits = _BITS.get(tensor.dtype), 8 * (tensor.end - place)
            fits = tensor.num_parameters * bits == size_bits if bits else tensor.num_parameters <= size_bits
            if tensor.begin != place or not fits:
                raise ValueError(tensor)
            place = tensor.end
    except (struct.error, ValueError, AttributeError, LookupError, TypeError):
        other = foreign(head[:HEAD_BYTES])
        what, fix = (f": it {other[0]}", other[1]) if other else ("", "fetch it again")
        raise ModelError(f"{where} is not a safetensors file{what}", fix) from None
    if size != place:
        raise _of_another_size(where, size, place)
    return tensors, notes


def check_file_size(path: Path) -> list[Tensor]:
    """Return the tensors of a safetensors or GGUF file. Raises ModelError if its size or header is wrong."""
    reader = read_gguf_header if path.suffix.lower() == GGUF else read_header
    tensors, _ = reader(partial(read_first, path), str(path), path.stat().st_size)
    return tensors


def _of_another_size(where: str, size: int, expected: int) -> ModelError:
    return ModelError(f"{where} has {size} bytes, but its header says {expected}", "fetch it again")


def read_first(path: Path, count: int | None) -> bytes:
    """Return the first `count` bytes of a file; all of them for None."""
    try:
        with path.open("rb") as file:
            return file.read() if count is None else file.read(count)
    except OSError as error:
        fix = "check its name" if isinstance(error, FileNotFoundError) else "check its permissions"
        raise ModelError(f"{path} cannot be read: {error.strerror}", fix) from error


def _tensor(name: str, entry: Any, start: int) -> Tensor:
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    are_counts = all(type(number) is int and 0 <= number <= _MAX_NUMBER for number in (*shape, begin, end))
    if not are_counts or len(shape) > _MAX_DIMENSIONS or type(entry["dtype"]) is not str:
        raise ValueError(name)
    return Tensor(name=name, dtype=entry["dtype"], shape=shape, begin=start + begin, end=start + end)


def foreign(head: bytes) -> tuple[str, str] | None:
    """Return (what the file is, fix), e.g. the end of "model.ckpt ..."; None if it is not recognised."""
    if not head:
        return "is empty", _AGAIN
    if head.startswith(b"version https://git-lfs."):
        fix = "run `git lfs pull` where it was cloned, or fetch it with `hf download`"
        return "is a pointer of Git LFS, not the file that it stands for", fix
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        fix = "fetch it again; if a login is needed, use `hf auth login` and `hf download`"
        return "is a web page, maybe a login page or an error page", fix
    return None


# Files of diffusion models have a dozen settings and some thousand tensors; the vocabulary of text encoders
# takes a few megabytes.
MAX_GGUF_HEADER_BYTES, MAX_ENTRIES, MAX_TENSORS = 32 * 2**20, 600_000, 50_000
_FIRST_BYTES = 2**18
_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_ALIGNMENT = "general.alignment"
_OWN_KEYS = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count")  # the package's names of the first numbers
GGUF_PLAIN = ("F32", "F16")  # plain types; others are packed
# Format of a setting's value, by the number of its type; text and arrays are read below.
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9


class _TooShort(Exception):
    """The header is longer than the bytes that were read."""


class _Cursor:
    def __init__(self, content: bytes) -> None:
        self.content, self.place, self.num_entries = content, 0, 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(f"<{form}", self.content, self._step(struct.calcsize(f"<{form}")))
        return int(value) if form not in "fd" else 0

    def text(self) -> str:
        size = self.number("Q")
        start = self._step(size)
        return self.content[start : start + size].decode()

    def value(self, kind: int) -> int:
        """Skip the value of a setting. Returns it if it is a number."""
        inner, count = (self.number("I"), self.number("Q")) if kind == _ARRAY else (kind, 1)
        self.num_entries += count
        if self.num_entries > MAX_ENTRIES:
            raise ValueError(f"more than {MAX_ENTRIES:,} values")
        if inner == _TEXT:
            for _ in range(count):
                self._step(self.number("Q"))
        elif inner not in _FORMATS:
            raise ValueError(f"a value, or an array, of the type {inner}")
        elif kind == _ARRAY:
            self._step(struct.calcsize(f"<{_FORMATS[inner]}") * count)
        else:
            return self.number(_FORMATS[inner])
        return 0

    def _step(self, size: int) -> int:
        if size > MAX_GGUF_HEADER_BYTES:
            raise ValueError(f"a text or an array of {size:,} bytes")
        if self.place + size > len(self.content):
            raise _TooShort
        start, self.place = self.place, self.place + size
        return start


def read_gguf_header(read: Callable[[int], bytes], where: str, size: int) -> tuple[list[Tensor], Notes]:
    """Return the tensors of a GGUF file, without notes; dtypes are spelled as in GGUF, e.g. Q4_K.

    Raises ModelError as `read_header` does, and if the package `gguf` does not know a tensor's type. The file
    may be longer than its header says.
    """
    count = _FIRST_BYTES
    while True:
        content = read(count)
        try:
            tensors, end = _parsed(content)
            if size < end:
                raise _of_another_size(where, size, end)
            return tensors, {}
        except _TooShort:
            problem = "its header is cut off or too large"
            if len(content) < count or count >= MAX_GGUF_HEADER_BYTES:
                break
            count = min(4 * count, MAX_GGUF_HEADER_BYTES)
        except (ValueError, LookupError, struct.error, OverflowError) as error:
            kind = foreign(content[:HEAD_BYTES])
            problem = f"it {kind[0]}" if kind else str(error)[:200]
            break
    raise ModelError(f"{where} is not a GGUF file: {problem}", "fetch it again")


def _parsed(content: bytes) -> tuple[list[Tensor], int]:
    """Return the tensors, and where the last one ends."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    cursor = _Cursor(content)
    if bytes(content[:4]) != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    cursor.place = 4
    if (version := cursor.number("I")) not in _VERSIONS:
        raise ValueError(f"it has version {version}, but only versions {_VERSIONS} can be read")
    num_tensors, num_settings = cursor.number("Q"), cursor.number("Q")
    if num_tensors > MAX_TENSORS:
        raise ValueError(f"it has {num_tensors:,} tensors, more than {MAX_TENSORS:,}")
    alignment, keys = 32, {*_OWN_KEYS}
    for _ in range(num_settings):
        key, form = cursor.text(), cursor.number("I")
        value = cursor.value(form)
        if key in keys or (key == _ALIGNMENT and _FORMATS.get(form) != "I"):
            raise ValueError(f"the setting {key[:80]!r} is there twice, or has the wrong type")
        keys.add(key)
        alignment = value if key == _ALIGNMENT else alignment
    if not 1 <= alignment <= 2**16 or alignment & (alignment - 1):
        raise ValueError(f"{_ALIGNMENT} is {alignment}")
    entries = []
    for _ in range(num_tensors):
        name = cursor.text()
        num_dimensions = cursor.number("I")
        if num_dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"{name[:80]!r} has {num_dimensions} dimensions")
        shape = tuple(cursor.number("Q") for _ in range(num_dimensions))[::-1]
        kind, offset = GGMLQuantizationType(cursor.number("I")), cursor.number("Q")
        block, block_bytes = GGML_QUANT_SIZES[kind]
        row = shape[-1] if shape else int(kind.name in GGUF_PLAIN)  # only plain types may be single numbers
        if not all(shape) or not row or row % block or offset % alignment:
            raise ValueError(f"{name[:80]!r} has a size or an offset that its type does not allow")
        entries.append((name, kind.name, shape, offset, math.prod(shape) // block * block_bytes))
    start = -(-cursor.place // alignment) * alignment
    tensors = [
        Tensor(name=name, dtype=kind, shape=shape, begin=start + offset, end=start + offset + size)
        for name, kind, shape, offset, size in entries
    ]
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise ValueError("two tensors have the same name")
    place = start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin < place:
            raise ValueError(f"{tensor.name[:80]!r} overlaps another tensor")
        place = tensor.end
    return tensors, place
