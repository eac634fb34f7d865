"""A half-done row, as the bytes of a safetensors file, and back: no pickle, every bit checked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from framefleet.pipeline.guards.json_text import canonical_json, parse_json
from framefleet.pipeline.render.checkpoints.journal import MAX_KEPT_BYTES, Made
from framefleet.pipeline.render.fused.calls import digest_of
from framefleet.pipeline.request import Request

_VERSION = 2
_METADATA = "framefleet"
_MAX_HEADER_BYTES = 16 << 20  # some 100 bytes for each tensor: a row of 100,000 forwards
_SECONDS = ("encode_s", "denoise_s", "decode_s", "compute_s")
_IDENTITY = ("row_id", "model", "build", "surroundings")
_KEYS = {"version", "calls", "then", "seconds", "started_at", "had_company", *_IDENTITY}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCheckpoint:
    """How far a row has come. Where it continues, the three digests must be the same."""

    row_id: str
    model: str  # digest of the model's files
    build: str  # digest of framefleet's source
    surroundings: str  # digest of all else that decides bits
    made: Sequence[Made]  # see `Journal`
    then: str | None  # see `Journal`
    seconds: Mapping[str, float]  # spent so far
    started_at: datetime
    was_batched: bool


def checkpoint_bytes(checkpoint: RowCheckpoint) -> bytes:
    body = canonical_json(
        {
            "version": _VERSION,
            **{name: getattr(checkpoint, name) for name in _IDENTITY},
            "then": checkpoint.then,
            "calls": [[one.module, len(one.tensors), one.rows, one.is_again] for one in checkpoint.made],
            "seconds": {name: checkpoint.seconds.get(name, 0.0) for name in _SECONDS},
            "started_at": checkpoint.started_at.astimezone(UTC).isoformat(),
            "had_company": checkpoint.was_batched,
        }
    )
    tensors = {
        _name(place, index): tensor
        for place, one in enumerate(checkpoint.made)
        for index, tensor in enumerate(one.tensors)
    }
    return safetensors.torch.save(tensors, {_METADATA: f"{_digest(body, tensors)} {body}"})


def read_checkpoint(content: bytes) -> RowCheckpoint:
    """Return what `checkpoint_bytes` was given. Raises ValueError for anything else, and for a wrong bit."""
    header_size = int.from_bytes(content[:8], "little")
    if header_size > _MAX_HEADER_BYTES or len(content) > MAX_KEPT_BYTES + _MAX_HEADER_BYTES:
        raise ValueError("it is larger than any that framefleet writes")
    try:
        digest, _, body = parse_json(content[8 : 8 + header_size])["__metadata__"][_METADATA].partition(" ")
        tensors = safetensors.torch.load(content)
        if digest != _digest(body, tensors):
            raise ValueError("its bytes are not those that were written")
        return _checkpoint(parse_json(body), tensors)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, SafetensorError) as error:
        raise ValueError(f"it is not a checkpoint: {error}") from error


def _checkpoint(said: Mapping[str, Any], tensors: dict[str, Tensor]) -> RowCheckpoint:
    if said["version"] != _VERSION:
        raise ValueError(f"it is of version {said['version']}, and this is {_VERSION}")
    if said.keys() != _KEYS or not isinstance(said["had_company"], bool):
        raise ValueError("its metadata is invalid")
    made = [
        Made(
            str(module),
            tuple(tensors.pop(_name(place, index)) for index in range(count)),
            int(rows),
            bool(is_again),
        )
        for place, (module, count, rows, is_again) in enumerate(said["calls"])
    ]
    seconds = {name: float(said["seconds"][name]) for name in _SECONDS}
    if not all(0 <= value < math.inf for value in seconds.values()):
        raise ValueError(f"invalid durations: {seconds}")
    if tensors:
        raise ValueError(f"no call returned {next(iter(tensors))}")
    return RowCheckpoint(
        **{name: str(said[name]) for name in _IDENTITY},
        made=made,
        then=None if said["then"] is None else str(said["then"]),
        seconds=seconds,
        started_at=min(datetime.fromisoformat(said["started_at"]).astimezone(UTC), datetime.now(UTC)),
        was_batched=said["had_company"],
    )


def _name(place: int, index: int) -> str:
    return f"{place}.{index}"


def _digest(body: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(body.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + digest_of(tensor))
    return digest.hexdigest()


@dataclass(eq=False, repr=False)
class HalfDone:
    """A row that is not a clip yet."""

    row_id: str
    request: Request
    _checkpoint: RowCheckpoint | bytes | None = None

    @property
    def can_go_on(self) -> bool:
        """Whether there is a checkpoint; asking makes none."""
        return self._checkpoint is not None

    @cached_property
    def checkpoint(self) -> bytes | None:
        """The bytes for `Renderer.submit`, made when they are first read, from any thread; else None."""
        if isinstance(self._checkpoint, RowCheckpoint):
            return checkpoint_bytes(self._checkpoint)
        return self._checkpoint
