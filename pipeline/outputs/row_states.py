"""From an output to what became of the rows of its table: counts, the rows that failed, and the log.

Every row is counted once, also if it is in several parts: a failure stays in failures/ until the next run
ends, and by then its row may have a record or be gone from the table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import StringConstraints, TypeAdapter

from framefleet.pipeline.errors import FramefleetError, JobError
from framefleet.pipeline.outputs.layout import ADDED, FAILURES, FORGOTTEN, LOGS, ROWS, TABLES
from framefleet.pipeline.outputs.parts import records
from framefleet.pipeline.outputs.parts.part_file import read_part
from framefleet.pipeline.outputs.parts.parts import (
    find_record,
    read_parts,
    rows_in_table,
    rows_of,
    whole_row_id,
)
from framefleet.pipeline.outputs.parts.seals import Part, live_parts, parts_in
from framefleet.pipeline.outputs.stores.store import Store, read_json
from framefleet.pipeline.overview import Overview

_ROW_ID = records.fields_named(records.RECORD_FIELDS, "row_id")
_FORGOTTEN = TypeAdapter(frozenset[Annotated[str, StringConstraints(pattern=records.ROW_ID)]])
_IN_TABLE, _HAS_RECORD, _HAS_FAILURE = 1, 2, 4
_PLACES = pa.schema([("row_id", pa.string()), ("place", pa.uint8())])
_COUNT = f"""
    SELECT
        count(*) FILTER (places & {_IN_TABLE} > 0),
        count(*) FILTER (places & {_HAS_RECORD} > 0),
        count(*) FILTER (places & {_HAS_RECORD} > 0 AND places & $at = $at),
        count(*) FILTER (places & {_HAS_FAILURE} > 0 AND places & {_HAS_RECORD} = 0 AND places & $at = $at)
    FROM (SELECT row_id, bit_or(place) AS places FROM ids GROUP BY row_id)
"""
_HINT = "\nhint: "  # as errors of ours are written, see `FramefleetError`
# What people can do about errors that are not ours.
_FIXES = {
    "OutOfMemory": "render fewer pixels or frames; in another output, set model.offload or model.vae_tiling",
    "WorkerDied": "the row kills every worker that renders it: look at the worker's log and memory",
    "TypeError": "an argument does not fit the pipeline, or the recipe: see --traceback",
}
# Of one run: some megabytes. If more rows fail, failures/ still has the last error of each.
MAX_LOG_LINES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCounts:
    """Distinct rows that can be rendered."""

    rows: int | None  # in the table as it was last read: done + failed + left; None: not known
    done: int  # with a record; if `rows` is None, also rows that are no longer in the table
    failed: int  # with a failure and no record
    left: int | None
    former: int  # with a record, and no longer in the table


def count_rows(store: Store) -> OutputCounts:
    """Read every row_id of an output once. Raises JobError for a part that is not ours, or damaged."""
    import duckdb  # here: it takes a tenth of a second, and most commands count nothing

    rows, raised = parts_in(store, ROWS), list[FramefleetError]()
    places = (_IN_TABLE, rows), (_HAS_RECORD, live_parts(store)), (_HAS_FAILURE, parts_in(store, FAILURES))

    def ids() -> Iterator[pa.RecordBatch]:
        try:
            for place, parts in places:
                for batch in (batch for table in row_ids_in(store, parts) for batch in table.to_batches()):
                    column = pa.repeat(pa.scalar(place, pa.uint8()), len(batch))
                    yield pa.RecordBatch.from_arrays([batch.column(0), column], schema=_PLACES)
        except FramefleetError as error:  # which DuckDB hides
            raised.append(error)
            raise

    with (
        # A hundred million rows and their records need more than one gigabyte, and then the disk.
        tempfile.TemporaryDirectory(prefix="framefleet-") as folder,
        duckdb.connect(config={"temp_directory": folder, "memory_limit": "4GB"}) as database,
    ):
        database.register("ids", pa.RecordBatchReader.from_batches(_PLACES, ids()))
        try:
            # If the table's rows are not known, all others count.
            where = {"at": _IN_TABLE if rows else 0}
            ((total, recorded, done, failed),) = database.execute(_COUNT, where).fetchall()
        except duckdb.Error:
            if raised:
                raise raised[0] from None
            raise

    return OutputCounts(
        rows=total if rows else None,
        done=done,
        failed=failed,
        left=total - done - failed if rows else None,
        former=recorded - done,
    )


def added_in(store: Store) -> list[str]:
    """Return the files of rows that were added to an output's table, the oldest first."""
    return sorted(path for path in store.list(TABLES) if path.startswith(f"{TABLES}/{ADDED}"))


def forgotten_rows(store: Store) -> frozenset[str]:
    """Return the row_ids that `framefleet forget` has taken out of an output for good."""
    try:
        return read_json(store, FORGOTTEN, _FORGOTTEN)
    except FileNotFoundError:
        return frozenset()


def row_ids_in(store: Store, parts: Iterable[Part]) -> Iterator[pa.Table]:
    """Yield the column `row_id` of some parts."""
    return read_parts(store, [part.path for part in parts], _ROW_ID)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FailedRow(Overview):
    """One row that was given up."""

    row_id: str
    positions: tuple[int, ...]  # in its table
    error_type: str
    message: str
    fix: str  # "" if nobody knows one
    attempts: int
    workers: tuple[str, ...]
    seed: int
    recipe: str
    arguments: str  # JSON
    failed_at: datetime
    traceback: str
    inner: str = ""  # the name of the inner output that it belongs to; "": the job's own output

    def overview(self) -> Mapping[str, object]:
        return {
            "row": f"{self.row_id}, at {', '.join(map(str, self.positions[:5]))}",
            "error": f"{self.error_type}: {self.message}",
            "fix": self.fix or None,
            "attempts": self.attempts,
            "failed": self.failed_at,
        }


def failed_rows(store: Store) -> Iterator[FailedRow]:
    """Yield the rows of `failed_tables`, in its order."""
    for row in chain.from_iterable(
        rows for table in failed_tables(store) for rows in rows_in_table(table, store.url_of(FAILURES))
    ):
        problem, _, fix = row["message"].partition(_HINT)
        same = {name: row[name] for name in FailedRow.__dataclass_fields__ if name in row}
        lists = {"positions": tuple(row["row_indices"]), "workers": tuple(row["workers"])}
        fix = fix or _FIXES.get(row["error_type"], "")
        yield FailedRow(**{**same, **lists, "message": problem, "fix": fix})


def failed_tables(store: Store) -> Iterator[pa.Table]:
    """Yield the last failures of rows that have no record and are in the table, the newest first."""
    failures, rows = parts_in(store, FAILURES), parts_in(store, ROWS)
    left = {row_id for table in row_ids_in(store, failures) for row_id in table["row_id"].to_pylist()}
    if left:
        left -= _among(left, row_ids_in(store, live_parts(store)))
    if left and rows:  # else the rows of the table are not known
        left = _among(left, row_ids_in(store, rows))
    for part in reversed(failures) if left else ():
        table = read_part(store, part.path, records.FAILURE_FIELDS)
        places = []
        for place, row_id in reversed([*enumerate(table["row_id"].to_pylist())]):
            if row_id in left:
                left.discard(row_id)
                places.append(place)
        yield table.take(pa.array(places, pa.int64()))


def _among(row_ids: set[str], tables: Iterator[pa.Table]) -> set[str]:
    wanted = pa.array(row_ids, pa.string())
    return {
        row_id
        for table in tables
        for row_id in table["row_id"].filter(pc.is_in(table["row_id"], wanted)).to_pylist()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    at: datetime
    level: str  # info or warning
    worker: str
    row_id: str
    message: str


LOG_FIELDS: pa.Schema = records.fields_from(LogLine)


def log_lines(store: Store, row_id: str | None = None) -> Iterator[LogLine]:
    """Yield the log of all rows, the oldest line first; or that of one row, and then what its record says.

    A driver only logs what a row's record does not say: a row that was rendered at its first attempt has no
    lines. row_id: or its first digits (four or more), or a clip's name. Raises JobError if there is no row.
    """
    parts, num_lines = [], 0
    if row_id is not None:
        parts = [*live_parts(store), *(part for at in (LOGS, FAILURES, ROWS) for part in parts_in(store, at))]
        row_id = whole_row_id(store, row_id, parts) or row_id
    for table in read_parts(store, [part.path for part in parts_in(store, LOGS)], LOG_FIELDS):
        if row_id is not None:  # a line without a row says that a run has logged no more, of any row
            table = table.filter(pc.is_in(table["row_id"], pa.array([row_id, ""])))
        num_lines += len(table)
        yield from (LogLine(**row) for row in rows_of(table, store.url_of(LOGS)))
    if row_id is None:
        return
    try:
        record = find_record(store, row_id)
    except JobError:  # it has no record
        if not num_lines and not _among({row_id}, row_ids_in(store, parts)):
            problem = f"{store.url_of('')} has no row {row_id}"
            fix = "take a row_id from a record, a failure or a clip's name"
            raise JobError(problem, fix) from None
    else:
        seconds = {"text": record.encode_s, "denoising": record.denoise_s}  # not while no job ran
        seconds |= {"decoding": record.decode_s, "writing": record.write_s}
        times = ", ".join(f"{part} {taken_s:.1f} s" for part, taken_s in seconds.items())
        where = f"{record.node}, attempt {record.attempt}"
        message = f"done on {where}, in {sum(seconds.values()):.1f} s ({times}): {record.path or record.uri}"
        done_at, worker = record.finished_at, record.worker
        yield LogLine(at=done_at, level="info", worker=worker, row_id=row_id, message=message)
