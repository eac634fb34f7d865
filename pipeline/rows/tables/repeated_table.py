"""From a table whose rows ask for `n` clips to one with a row for each clip, with consecutive seeds.

In the resulting rows, n is 1: read again as rows of another table, they stay the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import Refused, TableError
from framefleet.pipeline.model.specs.check import check_seed
from framefleet.pipeline.request import MAX_SEED
from framefleet.pipeline.rows.tables.column_checks import check_type
from framefleet.pipeline.rows.tables.file_reading import MAX_BATCH_BYTES
from framefleet.pipeline.rows.tables.other_words import check_n
from framefleet.pipeline.rows.tables.row_cells import python_values
from framefleet.pipeline.rows.tables.table import Table

_EXACT = (pa.types.is_integer, pa.types.is_float64, pa.types.is_decimal, pa.types.is_null)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedTable(Table):
    """The rows of `own`, each repeated `n` times, then those of `added`, which are repeated already."""

    own: Table
    added: Table | None = None
    n: str  # the column's name, which `own` may lack
    seed: str  # the same
    num: int  # of rows without n
    first_seed: int  # of rows without a seed

    def batches(self, batch_rows: int = 1024, *, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        first = 0
        for _, batch in self.own.batches(batch_rows):
            rows = ((place, pair) for place, pairs in enumerate(self._rows_in(batch)) for pair in pairs)
            # Some at a time: a large row is repeated for each clip, and a batch may become ten million rows.
            num_each = max(1, min(batch_rows, MAX_BATCH_BYTES // max(1, batch.nbytes)))
            while some := [*islice(rows, num_each)]:
                if first + len(some) > start:
                    part = batch.take(pa.array([place for place, _ in some]))
                    yield first, self._with(part, [pair for _, pair in some])
                first += len(some)
                self._check_length(first)
        for offset, batch in self.added.batches(batch_rows) if self.added else ():
            yield first + offset, batch

    def joined(self, others: Sequence[Table]) -> Table:
        before = self.added or Table(location=self.location, sources=(), schema=self.schema, lengths=())
        added = before.joined(others) if others else self.added
        return replace(self, added=added, sources=(*self.own.sources, *(added.sources if added else ())))

    def places(self, rows: Collection[int]) -> dict[int, str]:
        of_own, first = dict[int, int](), 0
        for first_of_own, batch in self.own.batches() if rows else ():
            for row, pairs in enumerate(self._rows_in(batch), first_of_own):
                of_own |= {place: row for place in range(first, first + len(pairs)) if place in rows}
                first += len(pairs)
        places = self.own.places({*of_own.values()})
        later = [row - first for row in rows if row >= first]
        of_added = self.added.places(later) if self.added else {}
        known = {row: places[own] for row, own in of_own.items() if own in places}
        return known | {first + row: place for row, place in of_added.items()}

    def _rows_in(self, batch: pa.RecordBatch) -> Iterator[list[tuple[Any, Any]]]:
        """Yield for each row (n, seed) of the rows it becomes; its own values if one will be refused."""
        return map(self._rows_of, _cells(batch, self.n), _cells(batch, self.seed))

    def _rows_of(self, n: Any, seed: Any) -> list[tuple[Any, Any]]:
        num = self.num if n is None else check_n(n)
        first = self.first_seed if seed is None else check_seed(seed)
        if num == 1 or isinstance(first, Refused):
            return [(1, seed)]
        if isinstance(num, Refused) or first + num - 1 > MAX_SEED:
            return [(num if n is None else n, seed)]
        return [(1, following) for following in range(first, first + num)]

    def _with(self, part: pa.RecordBatch, pairs: Sequence[tuple[Any, Any]]) -> pa.RecordBatch:
        columns = dict(zip(part.schema.names, part.columns, strict=True))
        for name, cells in zip((self.n, self.seed), zip(*pairs, strict=True), strict=True):
            kind = self.schema.field(name).type
            is_text = kind == pa.string()
            columns[name] = pa.array(
                [str(cell) if is_text and cell is not None else cell for cell in cells], kind
            )
        odd = [field for field in part.schema if field.name not in self.schema.names]
        schema = pa.schema([*self.schema, *odd])
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def repeated(table: Table, *, n: str, seed: str, num: int, first_seed: int) -> Table:
    """Return a table whose rows ask for one clip each. Raises TableError for columns of wrong types.

    n, seed: names of these columns. num, first_seed: for rows without them.
    """
    names = table.schema.names
    if n not in names and num == 1:
        return table
    fields = [_field(field, seed) if field.name in (n, seed) else field for field in table.schema]
    fields += [pa.field(name, pa.int64()) for name in (n, seed) if name not in names]
    return RepeatedTable(
        location=table.location,
        sources=table.sources,
        schema=pa.schema(fields),
        lengths=None,
        own=table,
        n=n,
        seed=seed,
        num=num,
        first_seed=first_seed,
    )


def _field(field: pa.Field, seed: str) -> pa.Field:
    """Return a column that can hold its numbers and the next ones: int64, or else text."""
    check_type(field, "seed" if field.name == seed else "n", "int")
    stored = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not any(is_kind(stored) for is_kind in (*_EXACT, *_TEXT)):
        problem = f"column {field.name!r} holds {stored}, which would round the next seeds"
        raise TableError(problem, "write it as int64")
    is_whole = pa.types.is_null(stored) or (pa.types.is_integer(stored) and stored != pa.uint64())
    return pa.field(field.name, pa.int64() if is_whole else pa.string())


def _cells(batch: pa.RecordBatch, name: str) -> list[Any]:
    if name not in batch.schema.names:
        return [None] * batch.num_rows
    column = batch.column(name)
    # Text that is not UTF-8 must still be refused.
    return [
        "\N{REPLACEMENT CHARACTER}" if cell is None and is_there else cell
        for cell, is_there in zip(python_values(column), column.is_valid().to_pylist(), strict=True)
    ]
