"""From a file of chosen rows, as the gallery saves it, to their row_ids."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.parts.records import ROW_ID
from framefleet.pipeline.outputs.stores.store import Store

_MAX_BYTES = 1 << 28  # half a million choices with prompts and notes


def picked(
    picks: str | Path | Collection[str] | None, storage_options: Mapping[str, Any]
) -> frozenset[str] | None:
    """Return row_ids that are given, or stand in a file; None for all rows."""
    if picks is None:
        return None
    return read_picks(str(picks), storage_options) if isinstance(picks, str | Path) else frozenset(picks)


def read_picks(place: str, storage_options: Mapping[str, Any]) -> frozenset[str]:
    """Return the rows that a JSONL file names, each line by its `row_id`. place: a path or a URL."""
    folder, _, name = place.rpartition("/")
    store = Store(folder or ("/" if place.startswith("/") else "."), storage_options)
    try:
        content = store.read(name, _MAX_BYTES + 1)
    except FileNotFoundError:
        raise JobError(
            f"picks: {place} is not there", "save it from the gallery, or check its path"
        ) from None
    if len(content) > _MAX_BYTES:
        raise JobError(f"picks: {place} has more than {_MAX_BYTES:,} bytes", "split it, or use --where")
    lines = enumerate(content.splitlines(), start=1)
    rows = frozenset(_row_id(line, f"{place} line {number}") for number, line in lines if line.strip())
    if not rows:
        raise JobError(f"picks: {place} is empty", 'write lines as {"row_id": "..."}')
    return rows


def _row_id(line: bytes, where: str) -> str:
    try:
        found = parse_json(line)
    except ValueError as error:
        raise JobError(f"picks: {where} is no JSON: {error}", 'write lines as {"row_id": "..."}') from None
    row_id = found.get("row_id") if isinstance(found, dict) else None
    if not isinstance(row_id, str) or not re.fullmatch(ROW_ID.strip("^$"), row_id, re.ASCII):
        raise JobError(f"picks: {where} has no row_id of 32 hex digits", "take it from a record")
    return row_id
