"""JSON with tensors, as the bytes of a safetensors file, and back: no pickle, every bit checked.

Tensors go by their digests. The JSON is one entry of the metadata, behind its own digest: several entries are
written in any order, and equal content is to give equal bytes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from framefleet.pipeline.guards.json_text import canonical_json, parse_json
from framefleet.pipeline.model.sources.headers import MAX_HEADER_BYTES
from framefleet.pipeline.render.fused.calls import digest_of

METADATA = "framefleet"


def add_tensor(tensors: dict[str, Tensor], tensor: Tensor) -> str:
    """Add a tensor on the CPU to those of a file; return its name there."""
    name = digest_of(tensor).hex()
    tensors[name] = tensor.contiguous()
    return name


def tensor_file(body: Any, tensors: dict[str, Tensor]) -> bytes:
    """Return the file. body: JSON; ValueError where it is not, as for NaN. tensors: see `add_tensor`."""
    text = canonical_json(body)
    return safetensors.torch.save(tensors, {METADATA: f"{_sha256(text)} {text}"})


def read_tensor_file(content: bytes) -> tuple[Any, dict[str, Tensor]]:
    """Return what `tensor_file` was given. Raises ValueError for anything else, and for a wrong bit."""
    size = int.from_bytes(content[:8], "little")
    if size > MAX_HEADER_BYTES:  # some 250 bytes for each tensor: a row of 60,000 forwards
        raise ValueError("it is larger than any that framefleet writes")
    try:
        digest, _, text = parse_json(content[8 : 8 + size])["__metadata__"][METADATA].partition(" ")
        tensors = safetensors.torch.load(content)
    except (LookupError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(f"framefleet did not write it: {error}") from error
    if digest != _sha256(text) or any(digest_of(tensor).hex() != name for name, tensor in tensors.items()):
        raise ValueError("its bytes are not those that were written")
    return parse_json(text), tensors


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
