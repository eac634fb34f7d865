"""From `sweep:`, and a table or none, to its rows, or to what is wrong with them before any is made.

The rows are a table too, never in memory. Texts with {names} are filled in with the values of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from framefleet.pipeline.errors import JobError, Refused, shown
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.specs.signature import PLACES, ArgumentKind
from framefleet.pipeline.rows.sweeps.factors import TEXT_KINDS, Column, Factor, factors_of
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.tables.column_checks import argument_meant, plumbing_fix
from framefleet.pipeline.rows.tables.file_reading import MAX_BATCH_BYTES
from framefleet.pipeline.rows.tables.row_cells import ODD_FIELD, python_values
from framefleet.pipeline.rows.tables.rows import RowPlan
from framefleet.pipeline.rows.tables.table import MAX_ROWS, Table
from framefleet.pipeline.text import setting

# {{name}} is {name} as it stands; all other brackets are text, as in a prompt that is JSON.
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

    table: each of its rows is taken with each combination. kinds: of all arguments. others: parameters of
    the pipeline's call. columns: the job's, by which arguments stand in other columns.
    """
    factors = tuple(
        replace(
            factor,
            columns=tuple(replace(one, name=columns.get(one.name, one.name)) for one in factor.columns),
        )
        for factor in factors_of(sweep, kinds, storage_options)
    )
    varied = [column for factor in factors for column in factor.columns]
    names = [*table.schema.names] if table else []
    templates = _templates(varied, names)
    _check_names(varied, templates, kinds, others)
    for column in varied:
        if column.name in names and column.name not in templates.get(column.name, ()):
            raise JobError(
                f"sweep.{column.name}: the table has a column of that name",
                "leave one of them out; or, to ignore the table's, give the sweep's another name: "
                + setting(f"columns.{column.name}", f"swept_{column.name}"),
            )
    fields = [field for field in (table.schema if table else ()) if field.name not in templates]
    schema = pa.schema([*fields, *(pa.field(column.name, column.type) for column in varied)])
    swept = Swept(factors=factors, table=table, num_table_rows=1, schema=schema, templates=templates)
    _check_length(swept, "sweep")
    if table:
        swept = replace(swept, num_table_rows=_count(table, at_most=MAX_ROWS // swept.num_combinations))
        _check_length(swept, f"sweep of table {table.location}")
    return swept


def _templates(varied: Sequence[Column], found: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return which columns are texts to be filled in, with the names that they use."""
    texts = {one.name: one.some() for one in varied if one.kind in TEXT_KINDS}
    templates = {name: frozenset(names_in(some)) for name, some in texts.items() if is_template(some)}
    words = {*found, *(column.name for column in varied if column.name not in templates)}
    for place, names in templates.items():
        if missing := sorted(names - words):
            raise JobError(
                f"sweep.{place} uses {{{missing[0]}}}, and neither sweep nor table has that",
                f"{did_you_mean(missing[0], words)}; write {{{{{missing[0]}}}}} for the brackets themselves"
                if words
                else f"add its words, as `sweep: {{{missing[0]}: [...]}}`",
            )
    return templates


def _check_names(
    varied: Sequence[Column],
    templates: Mapping[str, frozenset[str]],
    kinds: Mapping[str, ArgumentKind],
    others: Collection[str],
) -> None:
    """Raise JobError for a name that is neither an argument nor a word that a text uses."""
    used = frozenset[str]().union(*templates.values())
    for column in varied:
        if column.kind is None and column.name not in used:
            raise JobError(
                f"sweep.{column.name}: rows have no such argument, and no text of the sweep uses "
                f"{{{column.name}}}",
                plumbing_fix(column.name) if column.name in others else argument_meant(column.name, kinds),
            )


def _count(table: Table, *, at_most: int) -> int:
    """Return the number of rows; where they are more, some number that is more."""
    if table.num_rows is not None:
        return table.num_rows
    num_rows = 0
    for _, batch in table.batches():
        num_rows += batch.num_rows
        if num_rows > at_most:
            break
    return num_rows


def _check_length(swept: Swept, where: str) -> None:
    if swept.num_rows > MAX_ROWS:
        raise JobError(
            f"{where}: {swept}, and {MAX_ROWS:,} are the limit",
            "sweep over less, or draw some combinations with `sweep.sample`",
        )


def check_sweep(swept: Swept, plans: Collection[RowPlan]) -> None:
    """Raise JobError for a value that no row can have: reported once, and not for each row.

    plans: of all models.
    """
    readers = [reader for plan in plans for reader in plan.readers if reader.kind not in PLACES]
    for column in (column for factor in swept.factors for column in factor.columns):
        checks = [reader.check for reader in readers if reader.column == column.name]
        for value in column.some() if checks and column.name not in swept.templates else ():
            answers = [None if value is None else check(value) for check in checks]
            refused = [one for one in answers if isinstance(one, Refused)]
            if len(refused) == len(checks):
                ends = re.fullmatch(r"(\d+)\s*\.{2,3}\s*(\d+)", str(value))
                raise JobError(
                    f"sweep.{column.name} has {shown(value)}, but {refused[0].reason}",
                    f"write {ends[1]}-{ends[2]}" if ends else refused[0].fix,
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """Each row of a table with each combination of the factors, the last of them changing first.

    Rows are numbered from 0: those of the table's row 0 come first. table: None is one row without columns,
    num_table_rows 1. templates: the columns whose texts hold {names}, with the names of each.
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
    def num_combinations(self) -> int:
        return math.prod(factor.num for factor in self.factors)

    @property
    def num_rows(self) -> int:
        return self.num_table_rows * self.num_combinations

    def __str__(self) -> str:
        """Return how its rows come about, as "3 prompts x 20 seeds = 60 rows"."""
        sizes = [_rows(self.num_table_rows)] if self.table else []
        return f"{' x '.join([*sizes, *map(str, self.factors)])} = {_rows(self.num_rows)}"

    def batches(self, batch_rows: int = 1024, *, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (index of the first row, up to `batch_rows` rows), in order. Raises TableError.

        start: rows before it are not wanted, and may come nevertheless.
        """
        if self.table is None:
            yield from self._crossed(0, None, batch_rows)
            return
        of_table = max(1, batch_rows // self.num_combinations)
        for first, batch in self.table.batches(of_table, start=start // self.num_combinations):
            yield from self._crossed(first, batch, batch_rows)

    def places(self, rows: Collection[int]) -> dict[int, str]:
        """Return where the table has the rows that these are made of."""
        of_table = {row: row // self.num_combinations for row in rows}
        places = self.table.places({*of_table.values()}) if self.table else {}
        return {row: places[own] for row, own in of_table.items() if own in places}

    def _crossed(
        self, first: int, batch: pa.RecordBatch | None, batch_rows: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows of a batch of the table, whose first is at `first`."""
        num_each = self.num_combinations
        num_rows = (batch.num_rows if batch else 1) * num_each
        if batch:  # a row of some megabytes is repeated in each
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
        """Return the rows, their templates filled: with what the table has, where it has that name."""
        columns = of_table | of_factors
        for column, names in self.templates.items():
            words = {name: python_values((of_factors | of_table)[name]) for name in names}
            columns[column] = pa.array(filled(of_factors[column].to_pylist(), words), pa.string())
        schema = self.schema.append(ODD_FIELD) if ODD_FIELD.name in of_table else self.schema
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


RowSource = Table | Swept


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def names_in(texts: Iterable[str | None]) -> set[str]:
    """Return the names that the texts use."""
    return {name for text in texts if text and "{" in text for _, name in _parts(text) if name}


def is_template(texts: Iterable[str | None]) -> bool:
    """Tell whether any text is not as it is rendered."""
    return any(text and "{" in text and len(_parts(text)) > 1 for text in texts)


def filled(texts: list[str | None], words: Mapping[str, list[Any]]) -> list[str | None]:
    """Return each text with the words of its row; None where one of these is null.

    words: by name, one for each text.
    """
    return [_fill(text, words, row) if text and "{" in text else text for row, text in enumerate(texts)]


def _fill(text: str, words: Mapping[str, list[Any]], row: int) -> str | None:
    pieces: list[str] = []
    for literal, name in _parts(text):
        pieces.append(literal)
        if name:
            if (word := words[name][row]) is None:
                return None
            pieces.append(str(word))
    return "".join(pieces)


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
