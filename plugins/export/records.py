"""Read the records of an output with another library: Arrow, pandas, `datasets` or DuckDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import pyarrow as pa

from framefleet.api.errors import JobError
from framefleet.api.outputs import Output

RecordsAs = Literal["arrow", "pandas", "datasets", "duckdb"]


def read_records(
    output: str,
    to: RecordsAs = "arrow",
    *,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """Return the current record of every finished row of an output, with later columns such as scores.

    output: a path or URL. to: arrow (pyarrow.Table), pandas (DataFrame), datasets (datasets.Dataset) or
    duckdb (a relation, for SQL), in memory. columns: all by default. where: a condition in SQL, e.g.
    "sharpness > 0.4". Raises JobError for a column that no record has.
    """
    if to not in get_args(RecordsAs):
        raise JobError(f"to is {to!r}", f"use {', '.join(get_args(RecordsAs))}")
    opened = Output.open_rendered(output, storage_options)
    tables = list(opened.records(columns, where=where))
    table = pa.concat_tables(tables) if tables else opened.schema(columns).empty_table()
    if to == "pandas":
        return table.to_pandas()
    if to == "duckdb":
        import duckdb

        return duckdb.from_arrow(table)
    if to == "datasets":
        from datasets import Dataset
        from datasets.table import InMemoryTable

        return Dataset(InMemoryTable(table))
    return table
