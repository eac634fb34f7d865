"""Checkpoints: writes tensors to the output after a step, and reads them back. Half-written ones don't count.

`checkpoints/<step>/` has safetensors files of about a gigabyte each, and a marker with their names and
SHA-256. The marker is written last: a folder without one was left by a killed process.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from torch import Tensor

from framefleet.api.errors import not_ours
from framefleet.api.outputs import Store, read_json

TRAIN_CHECKPOINTS, _MARKER = "checkpoints", "checkpoint.json"
_STEP = re.compile("[0-9]{1,18}")
# One upload each, and held in memory twice.
FILE_BYTES = 2**30

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checkpoint:
    """A complete checkpoint. step: number of steps done. files: with their SHA-256. scale: of the loss."""

    step: int
    files: Mapping[str, str]
    scale: Mapping[str, Any]


_CHECKPOINT = TypeAdapter(_Checkpoint)


class Checkpoints:
    """The checkpoints of one output. keep: how many of the last ones stay."""

    def __init__(self, store: Store, *, keep: int) -> None:
        self._store, self._keep = store, keep

    def write(self, step: int, state: Iterable[tuple[str, Tensor]], scale: Mapping[str, Any]) -> None:
        """Store what `state` yields; then delete old checkpoints."""
        files = {}
        for number, tensors in enumerate(_batches(state), start=1):
            content = safetensors.torch.save(tensors)
            path = f"{TRAIN_CHECKPOINTS}/{step}/part-{number:05}.safetensors"
            self._store.write(path, content)
            files[path] = hashlib.sha256(content).hexdigest()
        # The marker goes last: without it the files above do not count.
        marker = {"step": step, "files": files, "scale": dict(scale)}
        self._store.write(_marker(step), json.dumps(marker, indent=2).encode())
        for old in self._steps()[: -self._keep]:
            self._delete(old)

    def clear(self) -> None:
        """Remove what killed processes left unfinished. Nobody else may be writing."""
        for step in self._begun() - {*self._steps()}:
            self._delete(step)

    def last(self) -> _Checkpoint | None:
        steps = self._steps()
        if not steps:
            return None
        path = _marker(steps[-1])
        fix = _fix(self._store, steps[-1])
        checkpoint = read_json(self._store, path, _CHECKPOINT, fix=fix)
        if checkpoint.step != steps[-1] or not all(
            _step_of(file) == checkpoint.step for file in checkpoint.files
        ):
            raise not_ours(self._store.url_of(path), "it belongs to another checkpoint", fix)
        return checkpoint

    def read(self, checkpoint: _Checkpoint) -> Iterator[tuple[str, Tensor]]:
        """Yield what `write` was given. Raises JobError for a file that has changed since."""
        fix = _fix(self._store, checkpoint.step)
        for path, sha256 in checkpoint.files.items():
            content = self._store.read(path) if self._store.exists(path) else b""
            if hashlib.sha256(content).hexdigest() != sha256:
                raise not_ours(self._store.url_of(path), f"its SHA-256 is not the one in {_MARKER}", fix)
            try:
                tensors = safetensors.torch.load(content)
            except SafetensorError as error:
                raise not_ours(self._store.url_of(path), str(error), fix) from None
            yield from tensors.items()

    def _steps(self) -> list[int]:
        """Return the steps of all whole checkpoints, in order."""
        return sorted(step for step in self._begun() if self._store.exists(_marker(step)))

    def _begun(self) -> set[int]:
        """Return the steps of all, whole or not."""
        paths = self._store.list(TRAIN_CHECKPOINTS)
        return {step for path in paths if (step := _step_of(path)) is not None}

    def _delete(self, step: int) -> None:
        self._store.delete(_marker(step))  # first, or half a checkpoint would count
        self._store.delete_all(f"{TRAIN_CHECKPOINTS}/{step}")


def _fix(store: Store, step: int) -> str:
    folder = store.url_of(f"{TRAIN_CHECKPOINTS}/{step}")
    return f"delete {folder}, and run the same command again to continue from the checkpoint before it"


def _marker(step: int) -> str:
    return f"{TRAIN_CHECKPOINTS}/{step}/{_MARKER}"


def _step_of(path: str) -> int | None:
    folder, _, rest = path.partition("/")
    name = rest.partition("/")[0]
    return int(name) if folder == TRAIN_CHECKPOINTS and _STEP.fullmatch(name) else None


def _batches(state: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    tensors: dict[str, Tensor] = {}
    size = 0
    for name, tensor in state:
        if tensors and size + tensor.nbytes > FILE_BYTES:
            yield tensors
            tensors, size = {}, 0
        tensors[name] = tensor.contiguous()
        size += tensor.nbytes
    if tensors:
        yield tensors
