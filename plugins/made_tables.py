"""Store a table made from a job's rows in the job's output."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from framefleet.api.jobs import Job, below, store_of_job
from framefleet.pipeline.model.sources.integrity import sha256_of


def store_made_table(
    job: Job,
    folder: str,
    schema: pa.Schema,
    parts: Iterable[tuple[pa.RecordBatch, Mapping[str, Sequence[Any]]]],
    *,
    scratch: str | None = None,
) -> str:
    """Store the table, and return its place.

    Its name depends on its content, so that it never changes under a running driver. parts: rows, with cells
    of changed and new columns. scratch: a folder to use instead of the output.
    """
    with tempfile.TemporaryDirectory(prefix="framefleet-") as temporary:
        file = Path(scratch or temporary, "rows.parquet")
        with pa.parquet.ParquetWriter(file, schema) as writer:
            for batch, cells in parts:
                columns = [
                    pa.array(cells[field.name], field.type)
                    if field.name in cells
                    else batch.column(field.name)
                    for field in schema
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
        if scratch:
            return str(file)
        store, path = store_of_job(job), f"{folder}/{sha256_of(file)[:16]}.parquet"
        if not store.exists(path):
            store.upload(path, file)
    return below(job, path)
