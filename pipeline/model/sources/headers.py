"""From the first bytes of a safetensors file to its tensors: 8 bytes of length, JSON, then the values."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.json_text import parse_json

# A hundred bytes for each tensor, and the models with most have some thousands; safetensors itself would take
# 100 MB, which are gigabytes once they are parsed.
MAX_HEADER_BYTES = 16 * 2**20
# Of one value. Of a type that is not known here nothing but its place in the file is looked at.
_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64},
    **{"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64},
}
HEAD_BYTES = 512  # enough for all that is distinguished here
_AHEAD = 1 << 17  # the header of a thousand tensors
_AGAIN = "fetch it again"
_PAGES = (b"<!doctype", b"<html", b"<?xml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One entry of a header."""

    name: str
    dtype: str  # as safetensors spells it (F32, BF16)
    shape: tuple[int, ...]
    begin: int  # of its bytes in the file
    end: int

    @property
    def num_parameters(self) -> int:
        return math.prod(self.shape)


def read_header(read: Callable[[int], bytes], where: str) -> tuple[int, list[Tensor]]:
    """Return how many bytes stand before the data, and the tensors.

    read: gives this many of the file's first bytes. Raises ModelError when it is not a safetensors file: when
    tensors overlap, leave gaps, or take another number of bytes than their shape.
    """
    try:
        (length,) = struct.unpack("<Q", read(8))
        start = 8 + length
        header = parse_json(read(start if length <= MAX_HEADER_BYTES else 8)[8:])
        tensors = [_tensor(name, entry, start) for name, entry in header.items() if name != "__metadata__"]
        _check_places(tensors, start)
    except (struct.error, ValueError, AttributeError, LookupError, TypeError):
        other = foreign(read(HEAD_BYTES))
        what, fix = (f": it {other[0]}", other[1]) if other else ("", "fetch it again")
        raise ModelError(f"{where} is not a safetensors file{what}", fix) from None
    return start, tensors


def header_reader(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Return a reader of a file's first bytes that asks its store once for nearly all headers."""
    first = read(_AHEAD)
    return lambda count: first[:count] if count <= len(first) or len(first) < _AHEAD else read(count)


def check_file_size(path: Path) -> list[Tensor]:
    """Return the tensors. Raises ModelError for a file that is shorter or longer than its header says."""
    start, tensors = read_header(lambda count: read_first(path, count), str(path))
    check_size(str(path), path.stat().st_size, start, tensors)
    return tensors


def check_size(where: str, size: int, start: int, tensors: Iterable[Tensor]) -> None:
    """Raise ModelError for a file that is shorter or longer than its header says. start: of its data."""
    expected = max((tensor.end for tensor in tensors), default=start)
    if size != expected:
        raise ModelError(f"{where} has {size} bytes, but its header says {expected}", "fetch it again")


def read_first(path: Path, count: int | None) -> bytes:
    """Return the first `count` bytes of a file; all of them for None."""
    try:
        with path.open("rb") as file:
            return file.read() if count is None else file.read(count)
    except OSError as error:
        fix = "check its name" if isinstance(error, FileNotFoundError) else "check its permissions"
        raise ModelError(f"{path} cannot be read: {error.strerror}", fix) from error


def _tensor(name: str, entry: Any, start: int) -> Tensor:
    begin, end = entry["data_offsets"]
    numbers = [*entry["shape"], begin, end]
    if not all(type(number) is int and number >= 0 for number in numbers) or type(entry["dtype"]) is not str:
        raise ValueError(entry)
    shape = tuple(entry["shape"])
    return Tensor(name=name, dtype=entry["dtype"], shape=shape, begin=start + begin, end=start + end)


def _check_places(tensors: list[Tensor], start: int) -> None:
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        bits = _BITS.get(tensor.dtype)
        if tensor.begin != start or (bits and tensor.num_parameters * bits != 8 * (tensor.end - start)):
            raise ValueError(tensor)
        start = tensor.end


def foreign(head: bytes) -> tuple[str, str] | None:
    """Return (what the file is, what to do) as the end of "model.ckpt ...", or None for what is not known."""
    if not head:
        return "is empty", _AGAIN
    if head.startswith(b"version https://git-lfs."):
        return (
            "is a pointer of Git LFS, not the file that it stands for",
            "run `git lfs pull` where it was cloned, or fetch it with `hf download`",
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        return (
            "is a web page, as servers send it for a login or an error",
            "fetch it again, where a login is needed with `hf auth login` and `hf download`",
        )
    return None
