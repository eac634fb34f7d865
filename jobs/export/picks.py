"""From a file of chosen rows, as the gallery saves it, to their row_ids, stars and notes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from framefleet.jobs.export.choice import Pick
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.outputs.parts.records import ROW_ID
from framefleet.pipeline.outputs.stores.store import Store

_MAX_BYTES = 1 << 28  # half a million choices with prompts and notes
_MAX_STARS = 5  # as the gallery has it


def picked(
    picks: str | Path | Collection[str] | None, storage_options: Mapping[str, Any]
) -> dict[str, Pick] | None:
    """Return row_ids that are given, or are in a file with their stars and notes; None for all rows."""
    if picks is None:
        return None
    if isinstance(picks, str | Path):
        return _read_picks(str(picks), storage_options)
    return {row_id: Pick() for row_id in picks}


def _read_picks(place: str, storage_options: Mapping[str, Any]) -> dict[str, Pick]:
    """Return the rows that a JSONL file names, each line by its `row_id`, but for those with 0 stars.

    place: a path or a URL.
    """
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
    rows = dict(_pick(line, f"{place} line {number}") for number, line in lines if line.strip())
    chosen = {row_id: pick for row_id, pick in rows.items() if pick.stars != 0}
    if not chosen:
        raise JobError(f"picks: {place} has no row with a star", 'write lines as {"row_id": "..."}')
    return chosen


def _pick(line: bytes, where: str) -> tuple[str, Pick]:
    try:
        found = parse_json(line)
    except ValueError as error:
        raise JobError(f"picks: {where} is not JSON: {error}", 'write lines as {"row_id": "..."}') from None
    row_id = found.get("row_id") if isinstance(found, dict) else None
    if not isinstance(row_id, str) or not re.fullmatch(ROW_ID.strip("^$"), row_id, re.ASCII):
        raise JobError(f"picks: {where} has no row_id of 32 hex digits", "take it from a record")
    stars, note = found.get("stars"), found.get("note")
    if stars is not None and (type(stars) is not int or not 0 <= stars <= _MAX_STARS):
        raise JobError(f"picks: {where}: stars is {stars!r}", f"use a whole number from 0 to {_MAX_STARS}")
    if note is not None and not isinstance(note, str):
        raise JobError(f"picks: {where}: note is {note!r}", "write the note as text, or rename the key")
    return row_id, Pick(stars=stars, note=note)
