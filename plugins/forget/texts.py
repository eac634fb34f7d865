"""Find the texts that only the rows to forget have, and rows of other tables with these texts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from framefleet.api.clips import inputs_in
from framefleet.api.outputs import (
    FAILURE_FIELDS,
    FAILURES,
    RECORD_FIELDS,
    ROW_FIELDS,
    ROWS,
    Output,
    Store,
    told_arguments,
)

_ROWS_AT_ONCE = 1024  # as Python values
_OURS = {*RECORD_FIELDS.names, *FAILURE_FIELDS.names, *ROW_FIELDS.names}


@dataclass(slots=True)
class RowTexts:
    """The texts of the rows to forget, in their columns and arguments."""

    row_ids: frozenset[str]
    columns: set[str] = field(default_factory=set)  # of these rows
    # For each text that only these rows have: all texts of each row with it.
    rows_by_text: dict[str, list[frozenset[str]]] = field(default_factory=dict)
    inputs: set[str] = field(default_factory=set)  # images and videos that they name

    @classmethod
    def of(cls, stores: Collection[Store], row_ids: frozenset[str]) -> RowTexts:
        """Read all rows of an output and its inner outputs, and return the texts of these rows."""
        texts, of_inputs = cls(row_ids), set[str]()
        if not row_ids:
            return texts
        for row in (row for store in stores for row in _rows_in(store) if row["row_id"] in row_ids):
            cells, arguments = _own_cells(row), told_arguments(row)
            texts.columns |= cells.keys() | arguments.keys()
            inputs = {name: inputs_in(value) for name, value in arguments.items()}
            texts.inputs.update(one["uri"] for some in inputs.values() for one in some)
            of_inputs |= {name for name, some in inputs.items() if some}
            of_row = frozenset(nested_texts([cells, arguments]))
            for text in of_row:
                texts.rows_by_text.setdefault(text, []).append(of_row)
        texts.columns -= of_inputs  # other tables may write their paths differently
        for row in (row for store in stores for row in _rows_in(store) if row["row_id"] not in row_ids):
            for text in nested_texts([_own_cells(row), told_arguments(row)]):
                texts.rows_by_text.pop(text, None)
        return texts

    @property
    def own_files(self) -> set[str]:
        """The names of images and videos that no other row names."""
        return {PurePosixPath(uri).name for uri in self.inputs & self.rows_by_text.keys()}

    def are_of(self, cells: Mapping[str, Any]) -> bool:
        """Whether the cells of a row in another table show that it is one of these.

        It has one of their row_ids, or at least one text that only they have, and no other texts.
        """
        if not self.row_ids.isdisjoint(nested_texts(cells)):
            return True
        spoken = {*nested_texts({name: cell for name, cell in cells.items() if name in self.columns})}
        own = spoken & self.rows_by_text.keys()
        return any(spoken <= of_row for text in own for of_row in self.rows_by_text[text])


def nested_texts(value: Any) -> Iterator[str]:
    """Yield the texts in a cell, at any depth."""
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from nested_texts(inner)


def is_text(kind: pa.DataType) -> bool:
    """Whether the cells of a column may contain text."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_nested(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _own_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: cell for name, cell in row.items() if name not in _OURS}


def _rows_in(store: Store) -> Iterator[Mapping[str, Any]]:
    """Yield the texts of every row of an output. Rows in several parts come more than once."""
    output = Output(store)
    schema = output.schema()
    own = [one.name for one in schema if one.name not in _OURS and is_text(one.type)]
    yield from _rows_of(output.records(["row_id", "arguments", *own]))
    for table in (table for folder in (FAILURES, ROWS) for table in output.tables(folder)):
        yield from _rows_of([table.select([one.name for one in table.schema if is_text(one.type)])])


def _rows_of(tables: Iterable[pa.Table]) -> Iterator[Mapping[str, Any]]:
    for batch in (batch for table in tables for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE)):
        yield from batch.to_pylist()
