"""Cells that do not fit their column: null where they stand, and reported in a column of their own.

One such cell in a text file is then one refused row. The column travels with the batch, through slices and
sweeps, to `readable`; only batches with such a cell have it, and no table's schema does.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from framefleet.pipeline.model.specs.refusal import Problem, Refused

ODD_CELLS = "\0odd"  # nobody types it, and `file_reading` refuses a column of that name
MAX_TOLD = 8  # of one row: what is wrong with its ten thousand columns may be larger than the row
_MAX_VALUE = 256  # characters of a cell's JSON, of which messages show fewer; and of a name

OddCells = dict[int, list[Problem]]  # of the rows that have some, by their offset in a batch


def with_odd_cells(batch: pa.RecordBatch, odd: OddCells) -> pa.RecordBatch:
    """Return the batch with what is wrong with its cells. Of each row the first are reported."""
    told = [_written(odd[offset][:MAX_TOLD]) if offset in odd else None for offset in range(batch.num_rows)]
    return pa.RecordBatch.from_arrays(
        [*batch.columns, pa.array(told, pa.string())], schema=batch.schema.append(FIELD)
    )


def without_empty(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch without the column, where no cell is odd."""
    if ODD_CELLS not in batch.schema.names or batch.column(ODD_CELLS).null_count < batch.num_rows:
        return batch
    return batch.select([name for name in batch.schema.names if name != ODD_CELLS])


def odd_cells(batch: pa.RecordBatch) -> OddCells:
    """Return what `with_odd_cells` was given."""
    if ODD_CELLS not in batch.schema.names:
        return {}
    told = enumerate(batch.column(ODD_CELLS).to_pylist())
    return {offset: _read(problems) for offset, problems in told if problems is not None}


def another_type(kind: pa.DataType) -> Refused:
    """Return why a cell is odd that is not of its column's type."""
    return Refused(
        reason=f"the column holds {_words(kind)}, as most of its cells in the first MB do",
        fix="write it as the others are, or the whole column as text",
    )


def _words(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"lists of {_words(kind.value_type)}"
    if pa.types.is_struct(kind):
        return f"objects with {', '.join(f'{field.name} ({_words(field.type)})' for field in kind)}"
    if pa.types.is_temporal(kind):
        return "dates" if pa.types.is_date(kind) else "times"
    return _WORDS.get(kind, str(kind))


_WORDS = {
    pa.string(): "text",
    pa.int64(): "whole numbers",
    pa.float64(): "numbers",
    pa.bool_(): "true and false",
    pa.null(): "nothing",
}
FIELD = pa.field(ODD_CELLS, pa.string())


def _written(problems: list[Problem]) -> str:
    """Return JSON in ASCII: cells and keys may hold half a character."""
    return json.dumps([(_name(one.column), _cut(one.value), one.why.reason, one.why.fix) for one in problems])


def _read(problems: str) -> list[Problem]:
    told = json.loads(problems)
    return [Problem(column, value, Refused(reason=reason, fix=fix)) for column, value, reason, fix in told]


def _name(column: str) -> str:
    return column[:_MAX_VALUE].encode("utf-8", "backslashreplace").decode()


def _cut(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    return value if len(text) <= _MAX_VALUE else text[:_MAX_VALUE]
