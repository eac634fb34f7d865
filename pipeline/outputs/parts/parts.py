"""In: rows, one at a time. Out: Parquet parts in the store; and back.

A row is done if and only if a part under `records/` names it, and that part counts (`seals.py`).

Rows are withdrawn so that they are rendered again: a part is replaced by one without them, and deleted once
that is stored and the lock is still ours. Whether a record goes depends only on the record, so that the next
driver can finish.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, groupby
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import JobError, not_ours
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.part_file import JOB, REPLACES, metadata_of, read_part, to_parquet
from framefleet.pipeline.outputs.parts.pending_clips import disown, intent_path
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, Record, fields_named, record_of
from framefleet.pipeline.outputs.parts.seals import Hold, Part, live_parts, new_run, part_path
from framefleet.pipeline.outputs.stores.store import Store

# A part is written after this many rows, or this long. Clips that have no record yet when a driver dies are
# adopted, which takes requests for each row. Both double with every 1,024 parts of a folder, up to 8,192 rows
# and 160 s: 100 million rows make 16,000 parts (else 390,000), and a month of slow rows 20,000.
_MAX_ROWS = 256  # about half a megabyte for a part
MAX_AGE_S = 5.0
_PARTS_PER_SIZE, _MAX_DOUBLINGS = 1024, 5
MAX_CARRIED_BYTES = 64 << 20  # of carried columns, where rows are megabytes
NUM_READERS = 8  # parts read at once on resume: a store answers in tens of milliseconds, whatever the size
_MAX_AHEAD = 64  # parts that may wait to be taken; fewer large ones, whose tables have this size together
_BYTES_AHEAD = 64 << 20
MAX_JOB_CHARACTERS = 1 << 15  # only the first part of a run repeats a longer job.json
_ROWS_AT_ONCE = 1024  # as dicts, of a part that people have put together
_ROW_ID_DIGITS = 32
_LEAST_DIGITS = 4  # of a row_id that people abbreviate
_ROW_ID = fields_named(RECORD_FIELDS, "row_id")
# Columns that decide which rows are withdrawn, and name their files.
_REASONS = ("recipe", "arguments", "environment", "model_name")
_FILES = ("row_id", "media_sha256", "extra_outputs_sha256", "derived_sha256")
_FIELDS = fields_named(RECORD_FIELDS, *_FILES, "bytes", *_REASONS)


class PartWriter:
    """Collects rows and writes them as parts of a folder; only what `flush` has written is committed."""

    def __init__(
        self, store: Store, folder: str, schema: pa.Schema, *, run: str, job: str = "", num_before: int = 0
    ) -> None:
        """run: in the names of the parts, so it must be new for every driver; letters, digits, dashes. job:
        the text of job.json. num_before: parts that the folder has already.
        """
        self._store, self._folder, self._schema, self._run, self._job = store, folder, schema, run, job
        self._carried: list[pa.RecordBatch] = []
        self._values: list[Mapping[str, Any]] = []
        self._waiting_since: float | None = None
        self._num_before, self._num_parts, self._num_bytes = num_before, 0, 0
        self._unsure: tuple[str, bytes] | None = None  # a part that may be stored: nobody answered

    @property
    def rows_waiting(self) -> int:
        return len(self._values)

    def add(self, carried_row: pa.RecordBatch | None, values: Mapping[str, Any]) -> None:
        """Add one row: its carried columns (one row; None if there are none), and our values."""
        if carried_row is not None:
            self._carried.append(carried_row)
            self._num_bytes += carried_row.nbytes
        self._values.append(values)

    def due(self, now: float) -> bool:
        """Return whether to flush: enough rows or bytes wait, or some for long enough. now: growing seconds.

        The age counts from the first call that saw a row waiting, so call it after every `add` or at least
        once a second.
        """
        if not self._values:
            return self._unsure is not None
        if self._waiting_since is None:
            self._waiting_since = now
        size = 2 ** min((self._num_before + self._num_parts) // _PARTS_PER_SIZE, _MAX_DOUBLINGS)
        is_full = len(self._values) >= size * _MAX_ROWS or self._num_bytes >= MAX_CARRIED_BYTES
        return is_full or now - self._waiting_since >= size * MAX_AGE_S

    def flush(self) -> list[str]:
        """Write the rows that wait as a part; return the paths of what was written.

        If this raises, the part may be stored all the same (a lost answer): it is kept as it is, and the next
        flush begins with the same bytes under the same name. So no row is ever in two parts, and a part is
        stored only after the one before it.
        """
        written = self._make_sure()
        if self._values:
            ours = self._values[0].keys()
            carried = pa.schema([field for field in self._schema if field.name not in ours])
            table = pa.Table.from_batches(self._carried, carried).combine_chunks()
            columns = [
                _column([values[field.name] for values in self._values], field.type)
                if field.name in ours
                else table.column(field.name)
                for field in self._schema
            ]
            number = self._num_parts + 1
            has_job = self._job and (number == 1 or len(self._job) <= MAX_JOB_CHARACTERS)
            content = to_parquet(pa.table(columns, schema=self._schema), {JOB: self._job} if has_job else {})
            self._unsure = part_path(self._folder, self._run, number, content), content
            self._carried, self._values, self._waiting_since, self._num_bytes = [], [], None, 0
        return written + self._make_sure()

    def _make_sure(self) -> list[str]:
        if self._unsure is None:
            return []
        path, content = self._unsure
        self._store.create(path, content)
        self._num_parts, self._unsure = self._num_parts + 1, None
        return [path]


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # a lone surrogate in some message: worth a question mark, not the part
        return pa.array([value and value.encode("utf-8", "replace").decode() for value in values], kind)


def tables_by_part(store: Store, fields: pa.Schema) -> Iterator[tuple[str, pa.Table]]:
    """Yield the path and these columns of each part that counts, in the order in which they were written."""
    paths = [part.path for part in live_parts(store)]
    yield from zip(paths, read_parts(store, paths, fields), strict=True)


def read_parts(store: Store, paths: Iterable[str], fields: pa.Schema | None) -> Iterator[pa.Table]:
    """Yield columns of parts as `read_part` does, in the order of paths, read in parallel."""
    waiting: deque[Future[pa.Table]] = deque()
    num_ahead = NUM_READERS
    with ThreadPoolExecutor(NUM_READERS) as readers:
        for path in paths:
            waiting.append(readers.submit(read_part, store, path, fields))
            while len(waiting) > num_ahead:
                table = waiting.popleft().result()
                num_ahead = max(1, min(_MAX_AHEAD, _BYTES_AHEAD // max(1, table.nbytes)))
                yield table
        while waiting:
            yield waiting.popleft().result()


def rows_in_table(table: pa.Table, where: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a part as dicts, some at a time. where: for messages."""
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield rows_of(pa.Table.from_batches([batch]), where)


def find_record(store: Store, row_id: str, parts: Sequence[Part] | None = None) -> Record:
    """Return the record of a row_id, its first digits (four or more) or a clip's name. Raises JobError.

    parts: where to look; None: in all that count.
    """
    parts = live_parts(store) if parts is None else parts
    whole = whole_row_id(store, row_id, parts)
    for part in reversed(parts) if whole else ():  # of doubles the last counts
        if pc.is_in(pa.scalar(whole), read_part(store, part.path, _ROW_ID)["row_id"]).as_py():
            table, where = read_part(store, part.path, RECORD_FIELDS), store.url_of(part.path)
            return record_of(rows_of(table.filter(pc.equal(table["row_id"], whole)), where)[-1], where)
    raise no_record(store, row_id)


def whole_row_id(store: Store, row_id: str, parts: Iterable[Part]) -> str:
    """Return the row_id in these parts with these first digits, or of a clip's name; "" if there is none.

    A whole row_id is not looked up. Raises JobError for too few digits.
    """
    first = row_id.rpartition("/")[2].partition(".")[0].partition("-")[0]
    if len(first) >= _ROW_ID_DIGITS:
        return first
    if len(first) < _LEAST_DIGITS:
        raise JobError(f"{row_id!r} is too short for a row_id", f"give at least {_LEAST_DIGITS} digits of it")
    matches: set[str] = set()
    for table in read_parts(store, [part.path for part in parts], _ROW_ID):
        row_ids = table["row_id"]
        matches.update(row_ids.filter(pc.starts_with(row_ids, first)).to_pylist())
    if len(matches) > 1:
        examples = ", ".join(sorted(matches)[:3])
        problem = f"{store.url_of('')} has {len(matches):,} rows that begin with {first}: {examples}"
        raise JobError(problem, "give more digits")
    return next(iter(matches), "")


def no_record(store: Store, row_id: str) -> JobError:
    problem = f"{store.url_of(RECORDS)} has no record of row {row_id}"
    return JobError(problem, "take a row_id from a record or a clip's name")


def rows_of(table: pa.Table, where: str) -> list[dict[str, Any]]:
    """Return the rows of a table as dicts. where: for messages."""
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except (ValueError, OverflowError) as error:  # a time beyond Python's
        raise not_ours(where, str(error)) from error
    return rows


def job_in_parts(store: Store) -> str | None:
    """Return job.json from the newest part that repeats it; None if none does. JobError: none can be read."""
    damage: JobError | None = None
    for part in reversed(live_parts(store)):
        try:
            if job := metadata_of(store, part.path).get(JOB):
                return job
        except JobError as error:
            damage = error
    if damage:
        raise damage
    return None


def replace_part(
    store: Store, path: str, row_ids: Collection[str], *, run: str, number: int, hold: Hold
) -> None:
    """Replace a part by one without these rows; if no others are left, just delete it.

    run, number: in the name of the new part, which is newer, so that it counts while both exist. Only for the
    driver with the lock.
    """
    table = read_part(store, path, None)
    left = table.filter(pc.invert(pc.is_in(table["row_id"], pa.array(row_ids, pa.string()))))
    hold.check()
    if len(left):
        job = {name: text for name, text in metadata_of(store, path).items() if name == JOB}
        content = to_parquet(left, {**job, REPLACES: path})
        store.create(part_path(str(PurePosixPath(path).parent), run, number, content), content)
        hold.check()
    store.delete(path)


def finish_replacing(store: Store, hold: Hold, epochs: Collection[int]) -> list[str]:
    """Delete the parts that drivers of these epochs had replaced, but not deleted, when they were killed.

    Until then, their rows have two records, and rows that were taken out still count as done. Returns the
    paths of these parts.
    """
    if not epochs:
        return []
    live = live_parts(store)
    theirs = [part for part in live if part.epoch in epochs]
    of_runs = [[part.path for part in of_run] for _, of_run in groupby(theirs, lambda part: part.run)]

    def read(path: str) -> dict[str, str]:
        with suppress(JobError):  # damaged, which readers report
            return metadata_of(store, path)
        return {}

    with ThreadPoolExecutor(NUM_READERS) as readers:
        firsts = list(readers.map(read, [paths[0] for paths in of_runs]))
        # A run replaces parts, or adds rows; its first part says which, unless it is damaged.
        firsts_of = zip(of_runs, firsts, strict=True)
        others = [paths[1:] for paths, first in firsts_of if REPLACES in first or not first]
        metadata = [*firsts, *readers.map(read, chain.from_iterable(others))]
    replaced = {path for values in metadata for path in values.get(REPLACES, "").splitlines()}
    left = [part.path for part in live if part.path in replaced]
    for path in left:
        hold.check()
        store.delete(path)
    return left


def withdraw(
    store: Store, goes: Callable[[Mapping[str, Any]], bool], hold: Hold
) -> Iterator[tuple[list[str], int]]:
    """Take out the records for which `goes` is true; yield what went from each part, once it is replaced.

    goes: called with recipe, arguments, environment, model_name and others. Yields row_ids, and the bytes of
    their clips, which are not adopted, but swept as soon as others replace them. Memory does not grow with
    the records. Only for the driver with the lock; must be read to the end.
    """
    parts, run = live_parts(store), new_run(hold.epoch)
    number = 0
    tables = read_parts(store, [part.path for part in parts], _FIELDS)
    for part, table in zip(parts, tables, strict=True):
        where = store.url_of(part.path)
        gone = [row for row in chain.from_iterable(rows_in_table(table, where)) if goes(row)]
        if gone:
            number += 1
            row_ids = [row["row_id"] for row in gone]
            withdrawn = {*row_ids}  # also other records of these rows, which go with them
            rows = chain.from_iterable(rows_in_table(table, where))
            taken = (row for row in rows if row["row_id"] in withdrawn)
            disown(store, [intent_path(*(row[name] for name in _FILES)) for row in taken])
            replace_part(store, part.path, row_ids, run=run, number=number, hold=hold)
            yield row_ids, sum(row["bytes"] for row in gone)
