"""Rows of a table that several models render: each read as its own model takes it, in the table's order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.specs.refusal import Problem, Refused, shown
from framefleet.pipeline.rows.tables.record_columns import Carried
from framefleet.pipeline.rows.tables.row_cells import readable
from framefleet.pipeline.rows.tables.rows import InvalidRow, RowPlan
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow, TableRows

MODEL_COLUMN = "model"  # the column, and the default

_Row = IdentifiedRow | InvalidRow


class ModelRows:
    """All rows of one table. With a single model it is that model's `TableRows`, and no column is read.

    by_model: how each model takes rows. column: says which model a row is of. default: that of a null.
    """

    def __init__(
        self, by_model: Mapping[str, TableRows], *, column: str | None = None, default: str | None = None
    ) -> None:
        self.by_model, self.column, self._default = by_model, column, default
        self.carried, self.argument_fields = joined_columns([rows.plan for rows in by_model.values()])

    def read(
        self, first_index: int, batch: pa.RecordBatch, only: Collection[int] | None = None
    ) -> Iterator[_Row]:
        """Yield the rows of the batch in order; `first_index` is the position of its first.

        only: the positions of those that are wanted; None wants all.
        """
        if self.column is None:
            assert self._default is not None, "rows without a column for their model have a default"
            return self.by_model[self._default].read(first_index, batch, only)
        return self._mixed(first_index, batch, only)

    def numbers_of(self, models: Iterable[str | Refused]) -> list[int]:
        """Return by which numbers `RowIndex` knows the models of rows; nothing where there is one model."""
        numbers = {name: number for number, name in enumerate(self.by_model)}
        return [numbers.get(str(name), 0) for name in models] if len(numbers) > 1 else []

    def _mixed(self, first_index: int, batch: pa.RecordBatch, only: Collection[int] | None) -> Iterator[_Row]:
        assert self.column is not None
        found = readable(batch, [self.column])
        rows: dict[int, _Row] = {
            offset: InvalidRow(index=0, problems=tuple(why)) for offset, why in found.refused.items()
        }
        of_model: dict[str, list[int]] = {name: [] for name in self.by_model}
        for offset, cell in zip(found.offsets, found.cells.column(0).to_pylist(), strict=True):
            if only is not None and first_index + offset not in only:
                continue
            model = self.model_of(cell)
            if isinstance(model, Refused):
                rows[offset] = InvalidRow(index=0, problems=(Problem(self.column, cell, model),))
            else:
                of_model[model].append(offset)
        for model, offsets in of_model.items():
            some = batch if len(offsets) == batch.num_rows else batch.take(pa.array(offsets, pa.int64()))
            read = self.by_model[model].read(0, some) if offsets else ()
            rows |= {offset: row for offset, row in zip(offsets, read, strict=True)}
        for offset, row in sorted(rows.items()):
            if only is None or first_index + offset in only:
                yield _at(row, first_index + offset)

    def model_of(self, cell: Any) -> str | Refused:
        """Return the model that a cell of the column names, or why there is none."""
        name = self._default if cell is None else cell.strip() if isinstance(cell, str) else cell
        if name is None:
            return Refused(
                reason="every row needs one of the job's `models`",
                fix=f"fill it in, or set `defaults: {{{MODEL_COLUMN}: {next(iter(self.by_model))}}}`",
            )
        if name not in self.by_model:
            return Refused(
                reason=f"the job's `models` has no {shown(name)}", fix=did_you_mean(str(name), self.by_model)
            )
        return str(name)


def _at(row: _Row, index: int) -> _Row:
    """Return a row with its position in the table."""
    if isinstance(row, InvalidRow):
        return replace(row, index=index)
    row.index = index
    return row


def joined_columns(plans: Sequence[RowPlan]) -> tuple[Carried, pa.Schema]:
    """Return what any of the models carries, and a column for each argument of any.

    Where types of an argument differ, it is one that holds both.
    """
    names = {column: name for plan in plans for column, name in plan.carried.names.items()}
    places = frozenset[str]().union(*(plan.carried.places for plan in plans))
    types: dict[str, pa.DataType] = {}
    for field in (field for plan in plans for field in plan.argument_fields):
        known = types.setdefault(field.name, field.type)
        if known != field.type:
            are_numbers = {known, field.type} == {pa.int64(), pa.float64()}
            types[field.name] = pa.float64() if are_numbers else pa.string()
    return Carried(names=names, places=places), pa.schema(list(types.items()))
