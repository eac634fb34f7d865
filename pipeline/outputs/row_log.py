"""What happened to rows: a driver keeps these lines in logs/, as far as a row's record does not say it.

A row that was rendered at its first attempt has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.layout import LOGS
from framefleet.pipeline.outputs.parts.part_names import parts_in
from framefleet.pipeline.outputs.parts.parts import find_record, read_parts, rows_of
from framefleet.pipeline.outputs.stores.store import Store

# Of one run: some megabytes. Where more rows fail, failures/ has the last words of each.
MAX_LOG_LINES = 20_000
LOG_FIELDS = pa.schema(
    [
        ("at", pa.timestamp("us", tz="UTC")),
        *((name, pa.string()) for name in ("level", "worker", "row_id", "message")),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """Something that happened to a row. level: info or warning."""

    at: datetime
    level: str
    worker: str
    row_id: str
    message: str


def log_lines(store: Store, row_id: str | None = None) -> Iterator[LogLine]:
    """Yield what is kept, the oldest first: of all rows, or of one, and then what its record says."""
    paths = [part.path for part in parts_in(store, LOGS)]
    for table in read_parts(store, paths, LOG_FIELDS):
        asked = table if row_id is None else table.filter(pc.equal(table["row_id"], row_id))
        yield from (LogLine(**row) for row in rows_of(asked, store.url_of(LOGS)))
    with suppress(JobError):  # it has none
        if row_id is not None:
            yield _done(store, row_id)


def _done(store: Store, row_id: str) -> LogLine:
    record = find_record(store, row_id)
    took_s = (record.finished_at - record.started_at).total_seconds()
    parts = {"text": record.encode_s, "denoising": record.denoise_s, "decoding": record.decode_s}
    parts["writing"] = record.write_s
    seconds = ", ".join(f"{what} {spent:.1f} s" for what, spent in parts.items())
    where = f"{record.node}, attempt {record.attempt}"
    return LogLine(
        at=record.finished_at,
        level="info",
        worker=record.worker,
        row_id=row_id,
        message=f"done on {where}, in {took_s:.1f} s ({seconds}): {record.path or record.uri}",
    )
