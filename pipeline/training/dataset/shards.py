"""What many rows prepared, as the bytes of one safetensors file, and back.

A tensor is stored once and named by its digest: rows of one prompt share its embedding, and all rows that of
the empty prompt. Which tensors are a row's is JSON in the file's metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import canonical_json, parse_json
from framefleet.pipeline.render.fused.calls import digest_of
from framefleet.pipeline.training.task import Prepared

_METADATA = "framefleet"  # one entry: several are written in any order


def shard_bytes(rows: Sequence[Prepared]) -> bytes:
    """Return the file; equal rows give equal bytes."""
    tensors: dict[str, Tensor] = {}
    names = [
        {name: _keep(tensor.detach().cpu(), tensors) for name, tensor in prepared.items()}
        for prepared in rows
    ]
    return safetensors.torch.save(tensors, {_METADATA: canonical_json(names)})


def _keep(tensor: Tensor, tensors: dict[str, Tensor]) -> str:
    digest = digest_of(tensor).hex()
    if digest not in tensors:  # a copy: safetensors takes no two tensors of one memory
        tensors[digest] = tensor.clone(memory_format=torch.contiguous_format)
    return digest


class Shard:
    """An open file, of which only what is asked for comes into memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = safe_open(path, framework="pt")
            self._rows: list[dict[str, str]] = parse_json(self._file.metadata()[_METADATA])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(error) from error

    def __getitem__(self, row: int) -> Prepared:
        """Return what the row of that number in the file prepared."""
        try:
            return {name: self._file.get_tensor(digest) for name, digest in self._rows[row].items()}
        except (SafetensorError, LookupError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> JobError:
        return JobError(
            f"{self._path} is not a file of prepared rows: {error}", "delete it, and it is made again"
        )
