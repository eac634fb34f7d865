"""From which rows are accepted to scores/ of an output, the columns `accepted` and `surplus`."""

from __future__ import annotations

import time
from collections.abc import Callable

import pyarrow as pa

from framefleet.pipeline.outputs.layout import SCORES
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.record_tables import OF_CLIP, record_schema_of, record_tables
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, fields_named
from framefleet.pipeline.outputs.parts.seals import live_parts, new_run
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.plugins.until.names import ACCEPTED, SURPLUS
from framefleet.plugins.until.step import MARKS

_KEY = pa.schema([*fields_named(RECORD_FIELDS, "row_id"), *OF_CLIP])


def write_marks(
    store: Store, mark_of: Callable[[str], tuple[bool, bool] | None], column: str = "row_id"
) -> None:
    """Note in scores/ which clips are accepted, and which are surplus, where it does not say so yet.

    mark_of: returns both for a value of the column; None where that is not known.
    """
    if not live_parts(store) or column not in (names := record_schema_of(store).names):
        return
    there = dict.fromkeys([*_KEY.names, column, *(name for name in MARKS.names if name in names)])
    writer = PartWriter(store, SCORES, pa.schema([*_KEY, *MARKS]), run=new_run(0))
    for table in record_tables(store, list(there)):
        for row in table.to_pylist():
            before = row.get(ACCEPTED), row.get(SURPLUS)
            mark = mark_of(row[column]) or ((False, False) if any(before) else None)
            if mark and mark != before:
                of_clip = {name: row[name] for name in _KEY.names}
                writer.add(None, of_clip | dict(zip(MARKS.names, mark, strict=True)))
        if writer.due(time.monotonic()):
            writer.flush()
    writer.flush()


def copy_marks(store: Store, inner: str, column: str) -> None:
    """Mark the clips of an output as the rows of an output in it that they were made from.

    inner: its folder. column: of the records, which names these rows.
    """
    rows = store.below(inner)
    if not live_parts(rows) or not {*MARKS.names} <= {*record_schema_of(rows).names}:
        return
    marks = {
        row_id: (accepted, surplus)
        for table in record_tables(rows, ["row_id", *MARKS.names])
        for row_id, accepted, surplus in zip(*(column.to_pylist() for column in table.columns), strict=True)
        if accepted is not None
    }
    write_marks(store, marks.get, column)
