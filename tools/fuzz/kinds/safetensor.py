"""Safetensors files whose headers lie."""

from __future__ import annotations

import json
import struct
from random import Random

from tools.fuzz import hostile


def mutated_safetensors(rng: Random, content: bytes) -> bytes:
    """Return the file with another header, another length of it, or other bytes."""
    if rng.random() < 0.3 or len(content) < 8:
        return hostile.mutated_bytes(rng, content)
    length = struct.unpack("<Q", content[:8])[0]
    try:
        header = hostile.mutated_tree(rng, json.loads(content[8 : 8 + length]))
    except ValueError:  # changed already
        header = hostile.value(rng)
    text = json.dumps(header).encode()
    said = len(text) if rng.random() < 0.9 else rng.choice(hostile.EDGES)
    return struct.pack("<Q", said) + text + content[8 + length :]
