"""From the first bytes of a safetensors file to its tensors: 8 bytes of length, JSON, then the values."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.json_text import parse_json
from framefleet.pipeline.sources.foreign_files import HEAD_BYTES, foreign

MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit; a broken length must not read the whole file


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One entry of a header. dtype: as safetensors spells it (F32, BF16). end: of its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    end: int

    @property
    def num_parameters(self) -> int:
        return math.prod(self.shape)


def read_header(read: Callable[[int], bytes], where: str) -> tuple[int, list[Tensor]]:
    """Return how many bytes stand before the data, and the tensors.

    read: gives so many of the file's first bytes. Raises ModelError when it is not a safetensors file.
    """
    try:
        (length,) = struct.unpack("<Q", read(8))
        start = 8 + length
        header = parse_json(read(start if length <= MAX_HEADER_BYTES else 8)[8:])
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        found = [
            Tensor(dtype=e["dtype"], shape=tuple(e["shape"]), end=start + e["data_offsets"][1])
            for e in entries
        ]
    except (struct.error, ValueError, AttributeError, LookupError, TypeError):
        known = foreign(read(HEAD_BYTES))
        what, fix = (f": it {known[0]}", known[1]) if known else ("", "fetch it again")
        raise ModelError(f"{where} is not a safetensors file{what}", fix) from None
    return start, found


def check_length(path: Path) -> None:
    """Raise ModelError for a file that is shorter or longer than its header says."""
    start, tensors = read_header(lambda count: read_first(path, count), str(path))
    expected, size = max((tensor.end for tensor in tensors), default=start), path.stat().st_size
    if size != expected:
        raise ModelError(f"{path} has {size} bytes, but its header says {expected}", "fetch it again")


def read_first(path: Path, count: int | None) -> bytes:
    """Return the first `count` bytes of a file; all of them for None."""
    with path.open("rb") as file:
        return file.read() if count is None else file.read(count)
