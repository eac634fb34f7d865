"""Write the columns `accepted` and `surplus` of records."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from framefleet.api.clips import ClipColumn
from framefleet.api.outputs import Store
from framefleet.pipeline.outputs.parts.record_tables import OF_CLIP, record_schema_of, record_tables
from framefleet.pipeline.outputs.parts.seals import live_parts
from framefleet.plugins.columns.column_lock import ColumnLock
from framefleet.plugins.until.names import ACCEPTED, SURPLUS, UNTIL
from framefleet.plugins.until.section import UntilSection

MARK_COLUMNS: Sequence[ClipColumn] = [
    ClipColumn(name=name, type=pa.bool_(), section=UNTIL, function=None, is_late=True)
    for name in (ACCEPTED, SURPLUS)
]
MARKS = pa.schema([column.field for column in MARK_COLUMNS])


def open_marks(section: UntilSection, folder: str | None) -> Sequence[ClipColumn]:
    """Return the columns that `until` fills."""
    return MARK_COLUMNS


def marks_lock(store: Store) -> ColumnLock:
    """Return the lock for writing which clips of an output are accepted, held during a run."""
    return ColumnLock(store, MARKS, renders=True)


def write_marks(
    store: Store,
    lock: ColumnLock,
    mark_of: Callable[[str], tuple[bool, bool] | None],
    column: str = "row_id",
) -> None:
    """Write which clips are accepted and surplus, where this has changed.

    mark_of: returns (accepted, surplus) for a value of the column, or None if not known.
    """
    if not live_parts(store) or column not in (names := record_schema_of(store).names):
        return
    there = ["row_id", *OF_CLIP.names, column, *(name for name in MARKS.names if name in names)]
    for table in record_tables(store, list(dict.fromkeys(there))):
        for row in table.to_pylist():
            before = row.get(ACCEPTED), row.get(SURPLUS)
            mark = mark_of(row[column]) or ((False, False) if any(before) else None)
            if mark and mark != before:
                lock.put(row, dict(zip(MARKS.names, mark, strict=True)))
    lock.flush()


def copy_marks(store: Store, inner: str, column: str) -> None:
    """Mark the clips of an output like the rows of its inner output from which they were made.

    inner: folder of the inner output. column: of the records; names these rows.
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
    with marks_lock(store) as lock:
        write_marks(store, lock, marks.get, column)
