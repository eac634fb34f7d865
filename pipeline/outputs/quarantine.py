"""Kinds of rows that an audit found wrong in a batch, `apart/<16 hex>.json`: no clip of these is adopted."""

from __future__ import annotations

import hashlib

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.layout import APART
from framefleet.pipeline.outputs.stores.store import Store


def note_apart(store: Store, kind: str) -> None:
    """Write down, for drivers to come, that rows of this kind were rendered wrong in a batch."""
    store.create(path_of(kind), canonical_json({"kind": kind}).encode())


def noted_apart(store: Store) -> set[str]:
    """Return the paths of the kinds that were noted."""
    return set(store.list(APART))


def path_of(kind: str) -> str:
    return f"{APART}/{hashlib.sha256(kind.encode()).hexdigest()[:16]}.json"
