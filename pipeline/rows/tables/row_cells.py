"""From a record batch to the rows whose cells can become Python values, and to why the others are refused.

Cells are checked in Arrow first: one may be megabytes long, text that is not UTF-8 (Latin-1 in a Parquet
file), or a date that Python cannot represent.

Odd cells are those of a text file that do not fit their column. They are null in their column and reported in
an extra column, which goes with the batch to `readable` and is in no table's schema. One odd cell is one
refused row. Tables that are made from a job's rows store that column too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import Problem, Refused
from framefleet.pipeline.rows.tables.formats import TO_UTF_8, likely_encoding, refused_text

# Bytes. Text encoders read a few thousand characters of a prompt, and longer paths and URLs do not exist.
MAX_TEXT = 1 << 16
_SHOWN = 100  # bytes of such a cell in a message
ODD_CELLS = "\0odd"  # nobody types it, and `file_reading` refuses a file of others that has such a column
ODD_FIELD = pa.field(ODD_CELLS, pa.string())
MAX_TOLD = 8  # problems of one row: those of ten thousand columns may be larger than the row
_MAX_VALUE = 256  # characters of a name or of a cell's JSON; messages show fewer

OddCells = dict[int, list[Problem]]  # by offset of the row in its batch


def with_odd_cells(batch: pa.RecordBatch, odd: OddCells) -> pa.RecordBatch:
    """Return the batch with a column that reports its odd cells, the first few of each row."""
    messages: list[str | None] = [None] * batch.num_rows
    for offset, problems in odd.items():
        problems_shown = []
        for problem in problems[:MAX_TOLD]:
            column = problem.column[:_MAX_VALUE].encode("utf-8", "backslashreplace").decode()
            text = problem.value if isinstance(problem.value, str) else json.dumps(problem.value)
            value = problem.value if len(text) <= _MAX_VALUE else text[:_MAX_VALUE]
            problems_shown.append((column, value, problem.why.reason, problem.why.fix))
        messages[offset] = json.dumps(problems_shown)  # in ASCII, because cells and keys may have surrogates
    return pa.RecordBatch.from_arrays(
        [*batch.columns, pa.array(messages, pa.string())], schema=batch.schema.append(ODD_FIELD)
    )


def without_empty(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch without the column of odd cells if it has none."""
    if ODD_CELLS not in batch.schema.names or batch.column(ODD_CELLS).null_count < batch.num_rows:
        return batch
    return batch.select([name for name in batch.schema.names if name != ODD_CELLS])


def odd_cells(batch: pa.RecordBatch) -> OddCells:
    """Return the odd cells that `with_odd_cells` has added. Raises ValueError if it did not write them."""
    if ODD_CELLS not in batch.schema.names:
        return {}
    cells = enumerate(batch.column(ODD_CELLS).to_pylist())
    return {offset: _reported(cell) for offset, cell in cells if cell is not None}


def _reported(cell: Any) -> list[Problem]:
    try:
        problems = [
            Problem(str(column), value, Refused(reason=str(reason), fix=str(fix)))
            for column, value, reason, fix in json.loads(cell)
        ]
    except (TypeError, RecursionError):
        problems = []
    if not problems:
        raise ValueError(f"the column {ODD_CELLS!r} was changed")
    return problems


def another_type(kind: pa.DataType) -> Refused:
    """Return why a cell that does not have its column's type is odd."""
    reason = f"the column holds {_words(kind)}, like most of its cells in the first MB"
    return Refused(reason=reason, fix="write it like the others, or the whole column as text")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """cells: of the readable rows. offsets: of these rows in the batch. refused: other rows, by offset."""

    cells: pa.RecordBatch
    offsets: list[int]
    refused: dict[int, list[Problem]]


def readable(batch: pa.RecordBatch, read: Collection[str]) -> Readable:
    """Return the readable rows of a batch. read: the columns to read; others are only carried."""
    refused = odd_cells(batch)
    reported = {(offset, problem.column) for offset, problems in refused.items() for problem in problems}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for offset, shown, reason in _problems(column, is_read=name in read):
            if (offset, name) not in reported:
                refused.setdefault(offset, []).append(Problem(name, shown, reason))
    offsets = [offset for offset in range(batch.num_rows) if offset not in refused]
    cells = batch.select(list(read))
    if refused:
        cells = cells.take(pa.array(offsets, pa.int64()))
    return Readable(cells=cells, offsets=offsets, refused=dict(sorted(refused.items())))


def repaired_row(row: pa.RecordBatch) -> pa.RecordBatch:
    """Return a refused row in readable form: bad text is repaired, other bad cells are null."""
    row = row.select([name for name in row.schema.names if name != ODD_CELLS])
    columns = []
    for cell in row.columns:
        if any(_problems(cell, is_read=False)):
            is_text = _is_text(cell.type)
            text = _bytes(cell[0]).decode("utf-8", "replace") if is_text else None
            cell = pa.array([text], cell.type) if is_text else pa.nulls(1, cell.type)
        columns.append(cell)
    return pa.RecordBatch.from_arrays(columns, schema=row.schema) if columns else row


def python_values(column: pa.Array) -> list[Any]:
    """Return the cells as Python values; None for cells that cannot be converted."""
    if _is_valid(column) and _has_values(column):
        return column.to_pylist()
    cells = (column[offset : offset + 1] for offset in range(len(column)))
    return [cell[0].as_py() if _is_valid(cell) and _has_values(cell) else None for cell in cells]


def _problems(column: pa.Array, *, is_read: bool) -> Iterator[tuple[int, str, Refused]]:
    """Yield (offset, what to show, why) of cells that cannot become Python values."""
    if not _is_valid(column):
        for offset in _failing(column, _has_values) or _failing(column, _is_valid):
            is_encoded = _is_text(column.type) or pa.types.is_nested(column.type)
            yield offset, _shown(column[offset]), _NOT_UTF_8 if is_encoded else _OUT_OF_RANGE
    if _is_text(column.type) and is_read:
        lengths = pc.binary_length(column)
        if (pc.max(lengths).as_py() or 0) > MAX_TEXT:  # first, because `pc.greater` imports pandas
            for offset in pc.indices_nonzero(pc.greater(lengths, MAX_TEXT)).to_pylist():
                yield offset, _shown(column[offset]), _TOO_LONG
    elif pa.types.is_temporal(column.type) and getattr(column.type, "unit", "") != "ns":  # ns always fit
        for offset in _failing(column, _has_values):
            yield offset, _shown(column[offset]), _OUT_OF_RANGE


_NOT_UTF_8 = Refused(reason="it is not UTF-8", fix=TO_UTF_8)
_TOO_LONG = Refused(reason=f"it is longer than {MAX_TEXT:,} bytes", fix="shorten it")
_OUT_OF_RANGE = Refused(reason="it is out of range", fix="correct it, or write it as text")


def _bytes(cell: pa.Scalar, count: int | None = None) -> bytes:
    return cell.as_buffer()[:count].to_pybytes()


def _failing(column: pa.Array, passes: Callable[[pa.Array], bool]) -> list[int]:
    """Return the offsets of cells that fail a check; in most columns, none does."""
    cells = range(0 if passes(column) else len(column))
    return [offset for offset in cells if not passes(column[offset : offset + 1])]


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _has_values(column: pa.Array) -> bool:
    try:
        column.to_pylist()
    except (ValueError, OverflowError):
        return False
    return True


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string())


def _shown(cell: pa.Scalar) -> str:
    if not _is_text(cell.type):
        return str(getattr(cell, "value", cell.type))  # the stored number of a date
    return _bytes(cell, _SHOWN).decode("utf-8", "replace")


class BadTexts:
    """Cells of one text file that are not UTF-8. The first batch with any shows the likely encoding."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._encoding: str | None = None
        self._is_known = False

    def tell(self, batch: pa.RecordBatch, odd: OddCells) -> None:
        """Add the bad cells of a batch to `odd`; the batch stays unchanged."""
        cells = [
            (offset, name, _bytes(column[offset]))
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
            if column.type == pa.string()
            for offset in _failing(column, _is_valid)
        ]
        bad = [cell for cell in cells if not _is_half(cell[2])]
        if bad and not self._is_known:
            self._encoding = likely_encoding(b"\n".join(text for _, _, text in bad))
            self._is_known = True
        for offset, name, text in bad:
            why = refused_text(text, self._encoding, self._file)
            odd.setdefault(offset, []).append(Problem(name, text.decode("utf-8", "replace"), why))


def _is_half(text: bytes) -> bool:
    """Return whether a text is UTF-8 apart from surrogates, which JSON can escape."""
    try:
        text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
