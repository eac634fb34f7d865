"""From `sweep:`, and a table or none, to its rows, or to what is wrong with them before any is made."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.specs.refusal import Refused, shown
from framefleet.pipeline.model.specs.signature import PLACES, ArgumentKind
from framefleet.pipeline.rows.sweeps.factors import TEXT_KINDS, Column, Factor, factors_of
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.sweeps.sweep_table import Swept, is_template, names_in
from framefleet.pipeline.rows.tables.column_checks import argument_meant, plumbing_fix
from framefleet.pipeline.rows.tables.rows import RowPlan
from framefleet.pipeline.rows.tables.table import MAX_ROWS, Table


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
    factors = tuple(_renamed(factor, columns) for factor in factors_of(sweep, kinds, storage_options))
    varied = [column for factor in factors for column in factor.columns]
    found = [*table.schema.names] if table else []
    templates = _templates(varied, found)
    _check_names(varied, templates, kinds, others)
    _check_apart(varied, templates, found)
    fields = [field for field in (table.schema if table else ()) if field.name not in templates]
    schema = pa.schema([*fields, *(pa.field(column.name, column.type) for column in varied)])
    swept = Swept(factors=factors, table=table, num_table_rows=1, schema=schema, templates=templates)
    _check_length(swept, "sweep")
    if table:
        swept = replace(swept, num_table_rows=_count(table, at_most=MAX_ROWS // swept.num_combinations))
        _check_length(swept, f"sweep of table {table.location}")
    return swept


def _renamed(factor: Factor, columns: Mapping[str, str]) -> Factor:
    named = tuple(replace(one, name=columns.get(one.name, one.name)) for one in factor.columns)
    return replace(factor, columns=named)


def _templates(varied: Sequence[Column], found: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return which columns are texts to be filled in, with the names that they use."""
    texts = {one.name: one.some() for one in varied if one.kind in TEXT_KINDS}
    templates = {name: frozenset(names_in(some)) for name, some in texts.items() if is_template(some)}
    known = {*found, *(column.name for column in varied if column.name not in templates)}
    for place, names in templates.items():
        if missing := sorted(names - known):
            raise JobError(
                f"sweep.{place} uses {{{missing[0]}}}, and neither sweep nor table has that",
                f"{did_you_mean(missing[0], known)}; write {{{{{missing[0]}}}}} for the brackets themselves"
                if known
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


def _check_apart(
    varied: Sequence[Column], templates: Mapping[str, frozenset[str]], found: Sequence[str]
) -> None:
    """Raise JobError for what table and sweep both give, unless it is made of what the table has."""
    for column in varied:
        if column.name in found and column.name not in templates.get(column.name, ()):
            raise JobError(
                f"sweep.{column.name}: the table has a column of that name", "leave one of them out"
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
            found = [None if value is None else check(value) for check in checks]
            refused = [one for one in found if isinstance(one, Refused)]
            if len(refused) == len(checks):
                raise JobError(
                    f"sweep.{column.name} has {shown(value)}, but {refused[0].reason}", refused[0].fix
                )
