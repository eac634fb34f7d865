"""Outputs and their parts as drivers and `score` leave them: records, failures, a driver's file, job.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from framefleet import Output, Progress, Store
from framefleet.cluster.driver.lock import Holder
from framefleet.cluster.driver.progress import WorkerState
from framefleet.jobs.render.claim import claim
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.layout import FAILURES, INVALID, LOGS, RECORDS, ROWS, SCORES, clip_path
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.part_file import read_part
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import (
    FIRST_FIELDS,
    MAY_COME_LATER,
    RECORD_FIELDS,
    FailureRecord,
    Record,
    failure_schema,
    fields_named,
    invalid_schema,
    record_schema,
    values_of,
)
from framefleet.pipeline.outputs.parts.seals import Part, live_parts, new_run
from framefleet.pipeline.outputs.row_states import LOG_FIELDS
from framefleet.pipeline.rows.identity import Identity
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from tests.jobs import job_values, prompt_rows, resolved_from, write_job, write_table
from tests.rows import NOON, record

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


class Held:
    """The lock of a driver that nobody takes over."""

    epoch = 1

    def check(self) -> None: ...

    def merged(self, parts: Iterable[Part], *, run: str, count: int) -> None: ...


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


def change_records(output: Path, change: Callable[[pa.Table], Mapping[str, list[Any]]]) -> pa.Table:
    """Replace columns of an output's only part, under a new name; return the table."""
    (part,) = (output / "records").iterdir()
    table = pq.read_table(part)
    for name, cells in change(table).items():
        place = table.column_names.index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(cells, field.type))
    part.unlink()
    pq.write_table(table, part.with_name("part-x.parquet"))
    return table


NO_COLUMNS = pa.table({})


def records_in(store: Store) -> pa.Table:
    """Return our columns of the records that count."""
    output = Output(store)
    columns = RECORD_FIELDS.names
    return pa.concat_tables([output.schema(columns).empty_table(), *output.records(columns)])


def write_records(
    folder: Path,
    run: str,
    numbers: Sequence[int],
    carried: pa.Table = NO_COLUMNS,
    scores: pa.Table = NO_COLUMNS,
    clip: str = "a",
) -> str:
    """Write one part; return its path. scores: as workers measure them. clip: which one each row has."""
    added = pa.schema([field.with_metadata(MAY_COME_LATER) for field in scores.schema])
    writer = PartWriter(Store(str(folder)), "records", record_schema(carried.schema, added=added), run=run)
    measured = scores.to_pylist() or [{}] * len(numbers)
    for place, number in enumerate(numbers):
        row = carried.slice(place, 1).combine_chunks().to_batches() if carried.num_columns else [None]
        values = values_of(record(number, worker=run, media_sha256=clip * 64))
        writer.add(row[0], values | measured[place])
    return writer.flush()[0]


def write_scores(folder: Path, run: str, numbers: Sequence[int], **columns: list[Any]) -> None:
    """Write scores of these rows, as somebody measured them later."""
    table = pa.table(columns | {"row_id": [f"{number:032x}" for number in numbers]})
    write_part(Store(str(folder)), SCORES, table.schema, table.to_pylist(), run)


def write_log(folder: Path, *lines: tuple[str, str], **changed: Any) -> None:
    """Write lines of the log: each of a row_id and what happened to it."""
    line = {"at": NOON, "level": "info", "worker": "worker-0", **changed}
    said = [line | {"row_id": row, "message": text} for row, text in lines]
    write_part(Store(str(folder)), LOGS, LOG_FIELDS, said)


def write_row_ids(folder: Path, *row_ids: str) -> None:
    """Write which rows the table has."""
    columns = fields_named(RECORD_FIELDS, "row_id")
    write_part(Store(str(folder)), ROWS, columns, [{"row_id": one} for one in row_ids])


ROWS_IN_A_PART = 2


def committed(folder: Path, num_rows: int = 6, **more: Any) -> Path:
    """Commit the rows of a job, two in a part; return its job file, beside which `out` lies."""
    rows = [{name: row[name] for name in ("prompt", "seed")} for row in prompt_rows(num_rows)]
    job = write_job(
        folder / "job.yaml", job_values(write_table(folder / "t.parquet", rows), folder / "out", **more)
    )
    with resolved_from(job) as resolved:
        claim(resolved)
        store, text = resolved.store, resolved.store.read("job.json").decode()
        writer = PartWriter(store, "records", RECORD_FIELDS, run=new_run(1), job=text)
        for first, batch in resolved.table.batches():
            for row in resolved.rows.read(first, batch):
                assert isinstance(row, IdentifiedRow)
                writer.add(None, _stored(store, row, resolved.first.identity))
                if writer.rows_waiting == ROWS_IN_A_PART:
                    writer.flush()
        writer.flush()
    return job


def _stored(store: Store, row: IdentifiedRow, identity: Identity) -> dict[str, Any]:
    """Store a clip of a few black pixels; return its record."""
    row_id, request, path = row.row_id, row.request(), clip_path(row.row_id, ".mp4")
    size = {"num_frames": 2, "height": 16, "width": 16}
    frames = np.zeros((*size.values(), 3), np.uint8)
    content = encode(frames, media=Media(), fps=16.0, metadata={"row_id": row_id})
    store.create(path, content)
    digest = hashlib.sha256(content).hexdigest()
    changed = {"uri": store.url_of(path), "path": path, "media_sha256": digest, "bytes": len(content)}
    asked = {name: getattr(request, name) for name in ("seed", "scheduler", "recipe")}
    texts = {"arguments": canonical_json(request.arguments), "numerics": canonical_json(identity.numerics)}
    texts |= {"model_digest": identity.model_digest, "environment": '{"threads":1}'}
    return values_of(record(0, **changed, **size, **asked, **texts, duration_s=0.125)) | {"row_id": row_id}
