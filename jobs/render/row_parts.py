"""rows/: one line for each valid row of the table, with its position, its row_id and its carried columns.

Rows with equal row_ids share one clip and one record, which has the carried columns of the first only. Here
each row keeps its own. rows/ mirrors the table: a part always covers the same positions, and is replaced as a
whole, so that a kill never duplicates a line. Parts that are correct stay.

rows/_survey.json: what the first pass over a table found, so that the next run need not repeat it. A hundred
million rows take half an hour to check, while every GPU waits. The pass is skipped if nothing that decides
its result has changed: the table's files (by what their store says about them), the job, the model, this code
and its libraries. Rows that name images or recipes depend on more than that, so they are checked again; so
are sweeps. Every row is still checked before it is rendered.

Rows that are added to an output's table while its job runs are checked, and rendered after all others.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.driver.run import Added
from framefleet.jobs.doors import More
from framefleet.jobs.render.claim import deciding_values
from framefleet.jobs.render.lanes import plan_lanes
from framefleet.jobs.render.resolve import ResolvedJob, with_added
from framefleet.jobs.render.survey import Survey, say_forgotten, survey_rows, write_invalid
from framefleet.jobs.show.watch import Callback, Checked, Watch
from framefleet.pipeline.errors import JobError, TableError, UserError, count_text, not_ours
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.model.specs.signature import PLACES
from framefleet.pipeline.outputs.layout import ROWS
from framefleet.pipeline.outputs.parts.part_file import storage_of
from framefleet.pipeline.outputs.parts.parts import read_parts, tables_by_part
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, ROW_FIELDS, fields_named, row_schema
from framefleet.pipeline.outputs.parts.seals import Hold, new_run
from framefleet.pipeline.outputs.row_states import added_in
from framefleet.pipeline.outputs.stores.store import Store, read_json
from framefleet.pipeline.request import inputs_in
from framefleet.pipeline.rows.identity import lane_named
from framefleet.pipeline.rows.sweeps.sweep import RowSource
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.record_columns import Carried
from framefleet.pipeline.rows.tables.request_checks import check_again
from framefleet.pipeline.rows.tables.row_ids import first_positions_of, ids_of, positions_of
from framefleet.pipeline.rows.tables.table import MAX_ROWS, Table

log = logging.getLogger(__name__)

_ROW_ID_LENGTH = 32
_ROWS_IN_PART = 8192  # positions; by way of a temporary file, as rows may be megabytes
# The digest of each part as written, and the stamp that the store gave it. Hidden from readers of the folder.
_NOTES = f"{ROWS}/_written.json"
_NOTED = TypeAdapter(dict[str, tuple[str, str]])


def write_rows(
    resolved: ResolvedJob,
    index: RowIndex,
    hold: Hold,
    *,
    start: int = 0,
    heed: Callable[[], None] = lambda: None,
) -> None:
    """Make rows/ match the table. index: of the whole table. Needs the output's lock.

    start: the first row that may be missing or wrong. heed: called often; what it raises ends this.
    """
    store, carried = resolved.store, resolved.rows.carried
    schema = row_schema(carried.schema(resolved.table.schema))
    noted, stored = _noted(store), store.details(ROWS)
    sound = {path for path, (_, stamp) in noted.items() if path in stored and stored[path].stamp == stamp}
    parts = {_part(number) for number in range(start // _ROWS_IN_PART)}
    digests = {path: noted[path][0] for path in parts & sound}
    is_changed = False
    pieces_from = _pieces(resolved.table, len(parts) * _ROWS_IN_PART)
    for number, pieces in groupby(pieces_from, key=lambda piece: piece[0] // _ROWS_IN_PART):
        heed()
        path = _part(number)
        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            file = Path(folder, "part.parquet")
            with pq.ParquetWriter(file, schema, **storage_of(schema)) as part:
                for first, batch in pieces:
                    part.write_table(_lines(first, batch, index, carried, schema))
            digests[path] = sha256_of(file)
            if path in sound and noted[path][0] == digests[path]:
                continue
            hold.check()
            if not is_changed:  # before any part: the notes must never be wrong
                store.delete(_NOTES)
            is_changed = True
            store.upload(path, file)
    beyond = [path for path in stored if path not in digests and path != _NOTES and path not in parts]
    if beyond or is_changed:
        hold.check()
        store.delete_many(beyond)
        stored = store.details(ROWS)
        notes = {path: (digest, stored[path].stamp) for path, digest in digests.items() if path in stored}
        store.write(_NOTES, canonical_json(notes).encode())


def sound_parts(store: Store) -> dict[str, str]:
    """Return each part with its digest; {} if one was changed since, is missing or is unknown."""
    noted, stored = _noted(store), store.details(ROWS)
    parts = {path for path in stored if path.endswith(".parquet")}
    is_sound = parts == noted.keys() and all(
        stored[path].stamp == stamp for path, (_, stamp) in noted.items()
    )
    return {path: digest for path, (digest, _) in noted.items()} if is_sound else {}


def distrust_parts(store: Store) -> None:
    """Make the next run check every row and write every part again, as one does not match the table."""
    store.delete(_NOTES)


def _part(number: int) -> str:
    return f"{ROWS}/part-{number:06d}.parquet"


def _pieces(table: RowSource, start: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the table in batches, each with the position of its first row, and none across two parts.

    start: where the first part to yield begins.
    """
    for first, batch in table.batches(start=start):
        if first < start:
            batch = batch.slice(min(start - first, batch.num_rows))
            first = start
        while batch.num_rows:
            count = _ROWS_IN_PART - first % _ROWS_IN_PART
            yield first, batch.slice(0, count)
            first, batch = first + count, batch.slice(count)


def _lines(
    first: int, batch: pa.RecordBatch, index: RowIndex, carried: Carried, schema: pa.Schema
) -> pa.Table:
    rows = index.row_ids_in(first, batch.num_rows)
    is_whole = len(rows) == batch.num_rows
    batches = [batch] if is_whole else [batch.slice(position - first, 1) for position, _ in rows]
    mine = pa.Table.from_batches(map(carried.of, batches), carried.schema(batch.schema))
    places = pa.py_buffer(array("q", [position for position, _ in rows]))
    ends = pa.py_buffer(array("i", range(0, _ROW_ID_LENGTH * len(rows) + 1, _ROW_ID_LENGTH)))
    texts = pa.py_buffer("".join(row_id for _, row_id in rows).encode())
    columns = [  # by buffers: to turn lists into arrays imports pandas
        pa.Array.from_buffers(pa.int64(), len(rows), [None, places]),
        pa.Array.from_buffers(pa.string(), len(rows), [None, ends, texts]),
        *mine.columns,
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _noted(store: Store) -> Mapping[str, tuple[str, str]]:
    try:
        return read_json(store, _NOTES, _NOTED)
    except (FileNotFoundError, JobError):  # then all parts are written again
        return {}


_SURVEY = f"{ROWS}/_survey.json"  # hidden from readers of the folder, as row_parts.py's own notes
_MAX_SHAPES = 1000  # with an example of each; a table may have a size for each row
_WRITE_AGAIN = f"delete {ROWS}/, which is written again from the table"
_SEEN = TypeAdapter(tuple[str, Survey])  # its `_key`, and the survey


def recall_survey(resolved: ResolvedJob, index: RowIndex, watch: Watch) -> Survey | None:
    """Fill `index` from rows/, and return the survey of an earlier run; None if it may be outdated.

    Raises JobError if rows/ is damaged.
    """
    parts = sound_parts(resolved.store)
    key = _key(resolved, parts)
    try:
        seen = read_json(resolved.store, _SURVEY, _SEEN) if key else None
        if seen is None or seen[0] != key or seen[1].num_rows > MAX_ROWS:
            return None
        survey, recipe = seen[1], resolved.recipes[resolved.job.recipe]
        specs = {name: model.spec for name, model in resolved.models.items()}
        for shape, request in survey.examples.items():
            survey.examples[shape] = check_again(request, specs[request.model], recipe)
    except (FileNotFoundError, JobError, KeyError, TableError):
        return None
    end = num_valid = 0
    store, rows = resolved.store, resolved.rows
    fields = [] if rows.column is None else [pa.field(rows.carried.names[rows.column], pa.string())]
    for part in read_parts(store, sorted(parts), pa.schema([*ROW_FIELDS, *fields])):
        positions = positions_of(part["row_index"])
        if (np.diff(positions, prepend=end - 1) < 1).any():
            raise not_ours(store.url_of(ROWS), f"a row after row {end - 1} is not in its place", _WRITE_AGAIN)
        first, end = end, int(positions.max(initial=end - 1)) + 1
        if end > survey.num_rows:
            break
        cells = part[fields[0].name].to_pylist() if fields else [None] * len(part)
        # Rows name no recipes here, see `_key`.
        lanes = {cell: lane_named(str(rows.model_of(cell)), resolved.job.recipe) for cell in set(cells)}
        index.add_ids(positions, ids_of(part["row_id"]), [lanes[cell] for cell in cells])
        is_left_out = np.ones(end - first, np.bool_)
        is_left_out[positions - first] = False
        index.leave_out(np.flatnonzero(is_left_out) + first)
        num_valid += len(part)
        watch.show(Checked(num_rows=end))
    if end > survey.num_rows or num_valid != survey.num_rows - survey.num_invalid - survey.num_forgotten:
        reason = f"the table has {count_text(survey.num_rows, 'row')}"
        raise not_ours(store.url_of(ROWS), reason, _WRITE_AGAIN)
    index.leave_out(range(end, survey.num_rows))
    say_forgotten(survey.num_forgotten, watch)
    return survey


def remember_survey(resolved: ResolvedJob, survey: Survey) -> None:
    """Store the survey, if a later run can use it. Call after rows/ was written."""
    if survey.num_invalid and resolved.job.on_invalid != "skip":
        return  # a run without a limit has to see these rows, to say what is wrong
    key = _key(resolved, sound_parts(resolved.store))
    if key is None or len(survey.shapes) > _MAX_SHAPES:
        return
    seen = key, replace(survey, invalid=[], places={})  # which are messages of one run
    resolved.store.write(_SURVEY, canonical_json(_SEEN.dump_python(seen)).encode())


def _key(resolved: ResolvedJob, parts: dict[str, str]) -> str | None:
    """Return a digest of all that decides a survey's result; None if some of it is unknown.

    parts: of rows/, each with its digest.
    """
    table, plans = resolved.table, [model.plan for model in resolved.models.values()]
    files = table.stamps() if isinstance(table, Table) else None
    readers = [reader for plan in plans for reader in plan.readers]
    names_more = any(reader.kind in PLACES or reader.target == "recipe" for reader in readers)
    names_more = names_more or any(inputs_in(value) for plan in plans for value in plan.base.values())
    if names_more or files is None or not parts:
        return None
    recipes = {name: recipe.digest for name, recipe in resolved.recipes.items()}
    values = [source_fingerprint(), deciding_values(resolved), recipes, files, parts]
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()


class Additions:
    """Takes the rows that `framefleet add` or a runner puts into the output."""

    def __init__(
        self,
        resolved: ResolvedJob,
        survey: Survey,
        index: RowIndex,
        lock: DriverLock,
        more: More | None = None,
    ) -> None:
        """survey, index: of the table so far. more: the runner's, if it adds rows."""
        self._resolved, self._survey, self._index, self._lock = resolved, survey, index, lock
        self._more = more
        self._table = resolved.table if isinstance(resolved.table, Table) else None
        self._seen = {*resolved.added}

    def take(self, num_rows: int = 0, heed: Callable[[], None] = lambda: None) -> Added | None:
        """Take the rows of the oldest new file; None if there is none. num_rows, heed: as in `More`.

        A file that cannot be used is left to the next run, which reports it too.
        """
        if self._table is None:
            return None
        if self._more:  # a runner adds rows, and takes in all new files
            files = [*self._new_files()]
            try:
                added_path = self._more(num_rows, heed)
            except UserError as error:
                for file in files:
                    _warn(file, error)
                return None
            self._lock.promise(files)
            return self._taken(added_path, heed) if added_path else None
        for path in self._new_files():
            try:
                added = self._taken(path, heed)
            except TableError as error:
                _warn(path, error)
            else:
                self._lock.promise([path])
                return added
        return None

    def _new_files(self) -> Iterator[str]:
        for path in added_in(self._resolved.store):
            if path not in self._seen:
                self._seen.add(path)
                yield path

    def _taken(self, path: str, heed: Callable[[], None]) -> Added:
        assert self._table is not None
        table = with_added(self._table, self._resolved.job, [path])
        first, index = self._survey.num_rows, self._index
        resolved = replace(self._resolved, table=table)
        with closing(RowIndex()) as new:  # so that a file that turns out to be damaged leaves nothing
            survey = survey_rows(resolved, new, Callback(), look_at=lambda _: heed(), start=first)
            self._lock.check()
            rows = new.row_ids_in(first, survey.num_rows)
            index.add(rows, new.lanes_at([position for position, _ in rows]))
            index.leave_out(new.left_out_in(first, survey.num_rows))
        for line in survey.invalid_lines():
            log.warning("%s: %s", path, line)
        self._table, self._resolved = table, resolved
        self._survey += survey
        num_done = self._mark_done(first) if index.num_foreign else 0
        write_rows(resolved, index, self._lock, start=first, heed=heed)
        remember_survey(resolved, self._survey)
        write_invalid(resolved, index, run=new_run(self._lock.epoch), start=first, heed=heed)
        return Added(
            table=table,
            lanes=plan_lanes(resolved, index, self._survey),
            num_new=index.render_added(first),
            num_done=num_done,
        )

    def _mark_done(self, first: int) -> int:
        """Note which rows from `first` on had a record before they were added; return how many."""
        fields = fields_named(FIRST_FIELDS, "row_id", "row_indices")
        return sum(
            self._index.mark_done(
                ids_of(records["row_id"]), first_positions_of(records["row_indices"]), since=first
            )
            for _, records in tables_by_part(self._resolved.store, fields)
        )


def _warn(path: str, error: UserError) -> None:
    log.warning("%s is not rendered by this run: %s (%s)", path, error.problem, error.fix)
