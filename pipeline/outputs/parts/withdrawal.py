"""Records taken out of records/, so that their rows are rendered again; a kill on the way changes nothing.

A part is replaced by one without them, and deleted when that is stored and the lock is still ours. What goes
is decided by each record alone: so whoever holds the output next decides the same, and finishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.outputs.parts.part_file import read_part
from framefleet.pipeline.outputs.parts.part_names import new_run
from framefleet.pipeline.outputs.parts.parts import read_parts, rows_of
from framefleet.pipeline.outputs.parts.pending_clips import disown, intent_path
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, fields_named
from framefleet.pipeline.outputs.parts.replace_part import replace_by
from framefleet.pipeline.outputs.parts.seals import Hold, live_parts
from framefleet.pipeline.outputs.stores.store import Store

_ASKED = fields_named(FIRST_FIELDS, "row_id", "bytes", "recipe", "arguments", "environment")
_ROWS_AT_ONCE = 1024  # as dicts, of a part that people have put together


def withdraw(
    store: Store, goes: Callable[[Mapping[str, Any]], bool], hold: Hold
) -> Iterator[tuple[list[str], int]]:
    """Take out the records that `goes` names; yield of each part, once it is replaced, what went.

    goes: asked with row_id, bytes, recipe, arguments, environment. Yields row_ids, and the bytes of their
    clips, which are not adopted, but swept as soon as others are in their place. Memory does not grow with
    the records. Only for who holds the output; to be read to the end.
    """
    parts, run = live_parts(store), new_run(hold.epoch)
    number = 0
    tables = read_parts(store, [part.path for part in parts], _ASKED)
    for part, table in zip(parts, tables, strict=True):
        where = store.url_of(part.path)
        gone = [row for rows in _some(table) for row in rows_of(rows, where) if goes(row)]
        if gone:
            number += 1
            row_ids = [row["row_id"] for row in gone]
            _replace(store, part.path, row_ids, run=run, number=number, hold=hold)
            yield row_ids, sum(row["bytes"] for row in gone)


def _some(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, len(table), _ROWS_AT_ONCE):
        yield table.slice(start, _ROWS_AT_ONCE)


def _replace(store: Store, path: str, row_ids: list[str], *, run: str, number: int, hold: Hold) -> None:
    table = read_part(store, path, None)
    is_gone = pc.is_in(table["row_id"], pa.array(row_ids, pa.string()))
    disown(store, _intents(table.filter(is_gone)))
    left = table.filter(pc.invert(is_gone))
    replace_by(store, path, left, run=run, number=number, hold=hold)


def _intents(table: pa.Table) -> list[str]:
    """Return where the intents of these records' clips were."""
    extras = "extra_outputs_sha256"
    names = ["row_id", "media_sha256", *([extras] if extras in table.column_names else [])]
    rows = table.select(names).to_pylist()
    return [intent_path(row["row_id"], row["media_sha256"], row.get(extras)) for row in rows]
