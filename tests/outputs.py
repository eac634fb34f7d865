"""Outputs as drivers leave them, without rendering: records, failures, a driver's file, job.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from framefleet import Progress, Store
from framefleet.cluster.driver.lock import Holder
from framefleet.cluster.driver.progress import WorkerState
from framefleet.pipeline.outputs.layout import FAILURES, INVALID, RECORDS
from framefleet.pipeline.outputs.parts.part_file import read_part
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import (
    FIRST_FIELDS,
    FailureRecord,
    Record,
    failure_schema,
    fields_named,
    invalid_schema,
    record_schema,
    values_of,
)
from framefleet.pipeline.outputs.parts.seals import live_parts

RUN = "000001-20260102T120000-89abcdef"
_NOTHING = pa.schema([])
UNDER_WAY = Progress(
    total=10,
    before=2,
    done=3,
    failed=1,
    in_flight=2,
    elapsed_s=60.0,
    rows_per_s=0.5,
    eta_s=12.0,
    mean_batch=2.0,
    workers=(WorkerState(name="worker-0", state="rendering", node="here", rows_in_hand=2, rows_done=3),),
)


def write_output(
    folder: Path,
    records: Iterable[Record] = (),
    failed: Iterable[FailureRecord] = (),
    *,
    num_invalid: int = 0,
    job: Mapping[str, Any] | None = None,
    run: str = RUN,
) -> Store:
    """Write parts of these, and job.json; return the store."""
    store = Store(str(folder))
    write_part(store, RECORDS, record_schema(_NOTHING), map(values_of, records), run)
    write_part(store, FAILURES, failure_schema(_NOTHING), map(values_of, failed), run)
    refused = ({"row_index": number, "reason": "no", "fix": "yes"} for number in range(num_invalid))
    write_part(store, INVALID, invalid_schema(_NOTHING), refused, run)
    store.write("job.json", json.dumps({"job": job or {}}).encode())
    return store


def write_part(
    store: Store, folder: str, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], run: str = RUN
) -> None:
    """Write these rows, which carry nothing of a table."""
    writer = PartWriter(store, folder, schema, run=run)
    for row in rows:
        writer.add(None, row)
    writer.flush()


def row_ids_of(store: Store, path: str) -> list[str]:
    """Return the rows that a part names."""
    return read_part(store, path, fields_named(FIRST_FIELDS, "row_id"))["row_id"].to_pylist()


def committed_row_ids(store: Store) -> list[list[str]]:
    """Return the row_ids of every part that counts, part by part."""
    paths = [part.path for part in live_parts(store)]
    fields = fields_named(FIRST_FIELDS, "row_id")
    return [read_part(store, path, fields)["row_id"].to_pylist() for path in paths]


def write_driver(
    store: Store, epoch: int = 1, *, progress: Progress | None = UNDER_WAY, **changed: Any
) -> Holder:
    """Write the file of a driver: this process, as it is under way."""
    driver = replace(Holder.here("me"), progress=progress, **changed)
    store.write(f"drivers/{epoch:06d}.json", driver.to_bytes())
    return driver
