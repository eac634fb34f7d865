"""From `sweep:`, with or without a table, to its rows, or to errors before any row is made.

The rows are a table too, and never all in memory. {names} in texts are replaced by values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from framefleet.pipeline.errors import JobError, Refused, count_text, shown
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.model.specs.signature import PLACES, ArgumentKind
from framefleet.pipeline.rows.sweeps.factors import FILLED_KINDS, TEXT_KINDS, Column, Factor, factors_of
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.tables.column_checks import argument_meant, plumbing_fix
from framefleet.pipeline.rows.tables.file_reading import MAX_BATCH_BYTES
from framefleet.pipeline.rows.tables.repeated_table import RepeatedTable
from framefleet.pipeline.rows.tables.row_cells import ODD_FIELD, python_values
from framefleet.pipeline.rows.tables.rows import RowPlan
from framefleet.pipeline.rows.tables.table import MAX_ROWS, Table

# {{name}} is the plain text {name}; all other braces are plain text too, e.g. in a JSON prompt.
_NAME = re.compile(r"\{\{(\w+)\}\}|\{([^\W\d]\w*)\}")
_REMEMBERED = 4096


def open_sweep(
    sweep: Sweep,
    table: Table | None,
    *,
    kinds: Mapping[str, ArgumentKind],
    others: Collection[str],
    columns: Mapping[str, str],
    storage_options: Mapping[str, Any],
) -> Swept:
    """Return the rows of a sweep. Raises JobError.

    table: each of its rows is combined with each combination. kinds: of all arguments. others: parameters of
    the pipeline's call. columns: the job's `columns:`, from arguments to the columns that have them.
    """
    factors: tuple[Factor, ...] = ()
    keys: dict[str, str] = {}  # of the sweep, by column
    for factor in factors_of(sweep, kinds, storage_options):
        renamed = tuple(replace(each, name=columns.get(each.name, each.name)) for each in factor.columns)
        factors += (replace(factor, columns=renamed),)
        for key, column in ((each.name, columns.get(each.name, each.name)) for each in factor.columns):
            if (other := keys.setdefault(column, key)) != key:
                problem = f"sweep.{other} and sweep.{key} are both values of the column {column!r}"
                raise JobError(problem, "use another name for one of them, in the sweep or in `columns`")
    varied = [column for factor in factors for column in factor.columns]
    arguments = {column: argument for argument, column in columns.items()}
    names = [*table.schema.names] if table else []
    templates = _templates(varied, names, arguments)
    used = frozenset[str]().union(*templates.values())
    for name, kind in ((column.name, column.kind) for column in varied):
        if kind is None and name not in used:
            texts = ((each.name, text) for each in varied if each.kind in TEXT_KINDS for text in each.some())
            if place := next((place for place, text in texts if text and f"{{{name}" in text), None):
                place = arguments.get(place, place)
                raise JobError(f"sweep.{place} has {{{name} without a closing bracket", f"write {{{name}}}")
            problem = f"sweep.{name}: rows have no such argument, and no text of the sweep uses {{{name}}}"
            raise JobError(problem, plumbing_fix(name) if name in others else argument_meant(name, kinds))
        if name in names and name not in templates.get(name, ()):
            argument = arguments.get(name, name)
            if isinstance(table, RepeatedTable) and name in {table.seed} - {*table.own.schema.names}:
                place = f"column {table.n!r}" if table.n in table.own.schema.names else "defaults.n"
                problem = f"{place} and sweep.{argument} both say which seeds there are"
                raise JobError(problem, "leave one out")
            fix = "leave one of them out"
            if kind is None:
                fix += ", or rename it in the sweep and its texts"
            else:
                fix += f"; for rows without one, write a single value as `defaults: {{{argument}: ...}}`"
            raise JobError(f"sweep.{argument}: the table also has a column {name!r}", fix)
    fields = [field for field in (table.schema if table else ()) if field.name not in templates]
    schema = pa.schema([*fields, *(pa.field(column.name, column.type) for column in varied)])
    swept = Swept(factors=factors, table=table, num_table_rows=1, schema=schema, templates=templates)
    _check_length(swept, "sweep")
    if table:
        num_rows, at_most = table.num_rows, MAX_ROWS // swept.num_combinations
        if num_rows is None:
            num_rows = 0
            for _, batch in table.batches():
                num_rows += batch.num_rows
                if num_rows > at_most:
                    break
        swept = replace(swept, num_table_rows=num_rows)
        _check_length(swept, f"sweep of table {table.location}")
    return swept


def _templates(
    varied: Sequence[Column], table_columns: Sequence[str], arguments: Mapping[str, str]
) -> dict[str, frozenset[str]]:
    """Return the columns whose texts have {names}, each with the names that it uses.

    arguments: by column, for arguments whose column has another name.
    """
    templates: dict[str, frozenset[str]] = {}
    for column in varied:
        texts = column.some() if column.kind in FILLED_KINDS else []
        parts = [_parts(text) for text in texts if isinstance(text, str) and "{" in text]
        if any(len(some) > 1 for some in parts):  # else the texts are plain
            templates[column.name] = frozenset(name for some in parts for _, name in some if name)
    _check_words(varied, {*table_columns, *(column.name for column in varied)})
    words = {*table_columns, *(column.name for column in varied if column.name not in templates)}
    for place, names in templates.items():
        if missing := sorted(names - words):
            place = arguments.get(place, place)
            word, near = missing[0], nearest(missing[0], words)
            meant = f"did you mean {{{near[0]}}}? Otherwise " if near else ""
            raise JobError(
                f"sweep.{place} uses {{{word}}}, but neither the sweep nor the table has it",
                f"{meant}add its values, e.g. `sweep: {{{word}: [...]}}`; "
                f"{{{{{word}}}}} stands for the text {{{word}}}",
            )
    return templates


def _check_words(varied: Sequence[Column], names: Collection[str]) -> None:
    """Raise JobError for a word of texts that itself uses one: only texts of arguments are filled in."""
    for column in varied:
        texts = (text for text in column.some() if isinstance(text, str)) if column.kind is None else ()
        inner = next((name for text in texts for _, name in _parts(text) if name in names), None)
        if inner:
            raise JobError(
                f"sweep.{column.name} uses {{{inner}}}, but is itself a word of other texts",
                f"write {{{inner}}} into the texts that use {{{column.name}}}",
            )


def _check_length(swept: Swept, where: str) -> None:
    if swept.num_rows > MAX_ROWS:
        problem = f"{where}: {swept}, but the limit is {MAX_ROWS:,}"
        raise JobError(problem, "use fewer values, or draw some combinations with `sweep.sample`")


def check_sweep(swept: Swept, plans: Collection[RowPlan]) -> None:
    """Raise JobError for a value that no model takes: once, and not for each row."""
    readers = [reader for plan in plans for reader in plan.readers if reader.kind not in PLACES]
    for column in (column for factor in swept.factors for column in factor.columns):
        of_column = [reader for reader in readers if reader.column == column.name]
        checks = [reader.check for reader in of_column]
        for value in column.some() if checks and column.name not in swept.templates else ():
            answers = [None if value is None else check(value) for check in checks]
            refused = [answer for answer in answers if isinstance(answer, Refused)]
            if len(refused) == len(checks):
                is_number = column.kind in ("int", "float", "ints", "floats")
                fix, text = refused[0].fix, str(value) if is_number else ""
                if ends := re.fullmatch(r"(\d+)\s*\.{2,3}\s*(\d+)", text):
                    fix = f"write {ends[1]}-{ends[2]}"
                elif re.fullmatch(r"(?=.*\d-)[-:\d\s]+(,[-:\d\s]+)+", text):
                    fix = f"write a list: [{', '.join(map(str.strip, text.split(',')))}]"
                raise JobError(
                    f"sweep.{of_column[0].target} has {shown(value)}, but {refused[0].reason}", fix
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Each row of a table with each combination of the factors; the last factor changes first.

    Rows are numbered from 0: those of the table's row 0 come first. table: None counts as one row without
    columns, so num_table_rows is 1. templates: the columns whose texts have {names}, each with its names.
    """

    factors: tuple[Factor, ...]
    table: Table | None
    num_table_rows: int
    schema: pa.Schema
    templates: Mapping[str, frozenset[str]]

    @property
    def location(self) -> str:
        return self.table.location if self.table else "sweep"

    @property
    def swept(self) -> frozenset[str]:
        """The columns of the sweep, without texts that use cells of the table."""
        cells = {*self.table.schema.names} if self.table else set()
        made = {column.name for factor in self.factors for column in factor.columns}
        return frozenset(made - {name for name, used in self.templates.items() if used & cells})

    @property
    def text_words(self) -> frozenset[str]:
        """The names that its texts use."""
        return frozenset[str]().union(*self.templates.values())

    @property
    def num_combinations(self) -> int:
        return math.prod(factor.num for factor in self.factors)

    @property
    def num_rows(self) -> int:
        return self.num_table_rows * self.num_combinations

    def __str__(self) -> str:
        """Return how the rows are counted, e.g. "3 prompts x 20 seeds = 60 rows"."""
        sizes = [count_text(self.num_table_rows, "row")] if self.table else []
        return f"{' x '.join([*sizes, *map(str, self.factors)])} = {count_text(self.num_rows, 'row')}"

    def fixed_values(self, name: str) -> list[Any]:
        """Return the values of a swept column; [] if its texts have {names}."""
        columns = (column for factor in self.factors for column in factor.columns if column.name == name)
        return [value for column in columns if name not in self.templates for value in column.some()]

    def batches(self, batch_rows: int = 1024, *, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (index of the first row, up to `batch_rows` rows) in order, from `start` or before it."""
        if self.table is None:
            yield from self._crossed(0, None, batch_rows)
            return
        of_table = max(1, batch_rows // self.num_combinations)
        for first, batch in self.table.batches(of_table, start=start // self.num_combinations):
            yield from self._crossed(first, batch, batch_rows)

    def places(self, rows: Collection[int]) -> dict[int, str]:
        """Return for each row the place of its table row, if the table knows it."""
        of_table = {row: row // self.num_combinations for row in rows}
        places = self.table.places({*of_table.values()}) if self.table else {}
        return {row: places[own] for row, own in of_table.items() if own in places}

    def _crossed(
        self, first: int, batch: pa.RecordBatch | None, batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows for a batch of the table that starts at row `first`."""
        num_each = self.num_combinations
        num_rows = (batch.num_rows if batch else 1) * num_each
        if batch:  # a large row is repeated in each combination
            batch_rows = max(1, min(batch_rows, MAX_BATCH_BYTES // max(1, batch.nbytes)))
        for start in range(0, num_rows, batch_rows):
            rows = np.arange(start, min(start + batch_rows, num_rows), dtype=np.int64)
            some = batch.take(pa.array(rows // num_each)) if batch else None
            of_table = dict(zip(some.schema.names, some.columns, strict=True)) if some else {}
            combinations = rows % num_each
            columns: dict[str, pa.Array] = {}
            for factor in reversed(self.factors):
                combinations, places = np.divmod(combinations, factor.num)
                columns |= {column.name: column.take(places) for column in factor.columns}
            yield first * num_each + start, self._joined(of_table, columns)

    def _joined(self, of_table: dict[str, pa.Array], of_factors: dict[str, pa.Array]) -> pa.RecordBatch:
        """Return the rows, with their templates filled in. For names in both, the table's values are used."""
        columns = of_table | of_factors
        for column, names in self.templates.items():
            words = {name: python_values((of_factors | of_table)[name]) for name in names}
            columns[column] = pa.array(filled(of_factors[column].to_pylist(), words), pa.string())
        schema = self.schema.append(ODD_FIELD) if ODD_FIELD.name in of_table else self.schema
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


RowSource = Table | Swept


def filled(texts: list[str | None], words: Mapping[str, list[Any]]) -> list[str | None]:
    """Return each text with its {names} replaced by the words of its row; None if one of these is null."""
    texts = [*texts]
    for row, text in enumerate(texts):
        if text and "{" in text:
            pairs = [(literal, words[name][row] if name else "") for literal, name in _parts(text)]
            is_null = any(word is None for _, word in pairs)
            texts[row] = None if is_null else "".join(f"{literal}{word}" for literal, word in pairs)
    return texts


@lru_cache(_REMEMBERED)
def _parts(text: str) -> tuple[tuple[str, str | None], ...]:
    """Return (text before, name after it) of each part; the last has no name."""
    parts: list[tuple[str, str | None]] = []
    at = 0
    for match in _NAME.finditer(text):
        escaped = "{" + match[1] + "}" if match[1] else ""
        parts.append((text[at : match.start()] + escaped, match[2]))
        at = match.end()
    return (*parts, (text[at:], None))
