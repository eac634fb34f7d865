"""From columns of text, as CSV has them, to the types of a table: a cell that does not fit is an odd one.

By Arrow's casts, which read numbers, dates and times as its reader of CSV does. That one gives up the whole
file for one cell.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.rows.tables.odd_cells import OddCells, another_type


def typed(batch: pa.RecordBatch, schema: pa.Schema) -> tuple[pa.RecordBatch, OddCells]:
    """Return the columns of `schema`, and what is wrong with cells that are null in it."""
    odd: OddCells = {}
    columns = []
    for field in schema:
        texts = batch.column(field.name)
        column, misfits = _cast(texts, field.type)
        columns.append(column)
        for offset in misfits:
            shown = texts[offset].as_buffer().to_pybytes().decode("utf-8", "replace")
            odd.setdefault(offset, []).append((field.name, shown, another_type(field.type)))
    return pa.RecordBatch.from_arrays(columns, schema=schema), odd


def _cast(texts: pa.Array, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Return the cells, and the offsets of those that are null in it as they do not fit."""
    if kind == pa.string():
        return texts, []
    try:
        return _parsed(texts, kind), []
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return pa.nulls(1, kind), [0]
    half = len(texts) // 2
    first, odd = _cast(texts[:half], kind)
    second, more = _cast(texts[half:], kind)
    return pa.concat_arrays([first, second]), [*odd, *(half + offset for offset in more)]


def _parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(texts)
    if not pa.types.is_time(kind):
        return trimmed.cast(kind)
    on_a_day = pc.binary_join_element_wise("1970-01-01 ", trimmed, "")  # there is no cast from text to times
    return on_a_day.cast(pa.timestamp(kind.unit)).cast(kind)
