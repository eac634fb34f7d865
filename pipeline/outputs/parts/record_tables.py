"""In: an output. Out: its records that count, as tables of some thousand rows, whoever wrote its parts.

Parts of several tables differ in their columns; here, all have the columns of all. Scores that were added
later (`scores/part-*.parquet`) are joined to their rows: to the clip with their media_sha256 or, if a part
that people wrote does not have that, to any clip of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import JobError, command, not_ours
from framefleet.pipeline.guards.mistakes import did_you_mean, either
from framefleet.pipeline.guards.temporary_tables import temporary_tables
from framefleet.pipeline.outputs.layout import RECORDS, SCORES
from framefleet.pipeline.outputs.parts.part_file import REPLACES, columns_of
from framefleet.pipeline.outputs.parts.parts import read_parts
from framefleet.pipeline.outputs.parts.records import (
    FIRST_FIELDS,
    RECORD_FIELDS,
    fields_named,
    may_come_later,
)
from framefleet.pipeline.outputs.parts.seals import Part, column_parts, live_parts
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.plugin import command_adding, plugins, section_adding

_ROWS_AT_ONCE = 4096
_BYTES_AT_ONCE = 64 << 20  # where rows carry megabytes
_ROW_ID = fields_named(RECORD_FIELDS, "row_id")
OF_CLIP = pa.schema([("media_sha256", pa.string())])
_ANY = ""  # in place of a media_sha256
_TEXTS = {pa.string(), pa.large_string()}
_MAX_SCORES = 500  # columns; SQLite's tables have at most 2,000


def record_schema_of(
    store: Store, parts: Sequence[Part] | None = None, *, columns: Sequence[str] | None = None
) -> pa.Schema:
    """Return every column that some record has: carried ones, ours, arguments, scores.

    If parts differ in a type, it is one that holds both, if need be text. parts: None: all that count.
    columns: only these. Raises JobError for a column that nothing here has.
    """
    return _Columns.of(store, live_parts(store) if parts is None else parts, columns).schema(store, columns)


def taken_columns(store: Store) -> frozenset[str]:
    """Return the columns that scores cannot have: those of records that are not scores, e.g. carried ones."""
    return _Columns.of(store, live_parts(store), ()).taken


def record_tables(
    store: Store, columns: Sequence[str] | None = None, parts: Sequence[Part] | None = None
) -> Iterator[pa.Table]:
    """Yield the records that count, some thousand at a time, oldest first; of doubled rows, only the last.

    columns: in this order; None: all of `record_schema_of`; null if a part lacks one. Scores of `scores/` are
    joined by row_id and media_sha256; of several, the newest. Raises JobError for a column that nothing here
    has. Each part is read twice, first to find the last of doubles, with some 25 bytes of memory for each
    record. parts: as in `record_schema_of`.
    """
    parts = live_parts(store) if parts is None else parts
    all_columns = _Columns.of(store, parts, columns)
    schema = all_columns.schema(store, columns)
    later = pa.schema([field for field in schema if field.name in all_columns.later.names])
    names = {*schema.names, "row_id", *(OF_CLIP.names if later.names else ())}
    tables = _counting_records(store, _paths(parts), [f for f in all_columns.records if f.name in names])
    if not later.names:
        yield from (shaped(table, schema) for table in tables)
        return
    fields = pa.schema([*_ROW_ID, *OF_CLIP, *later])
    with closing(ScoreIndex(later)) as scores:
        for table in read_parts(store, _paths(column_parts(store)), fields):
            scores.add(table)
        for table in tables:
            yield shaped(scores.joined(table), schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    records: pa.Schema  # those of the parts
    later: pa.Schema  # those of scores/
    taken: frozenset[str]  # those that scores/ cannot have

    @classmethod
    def of(cls, store: Store, parts: Sequence[Part], wanted: Collection[str] | None) -> _Columns:
        """wanted: columns that will be read; None: all."""
        there, of_scores = _schemas_of(store, parts), column_parts(store)
        columns = (column for plugin in plugins().values() for column in plugin.record_columns.items())
        added = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns])
        names = (field.name for schema in there for field in schema if not may_come_later(field))
        taken = frozenset([*RECORD_FIELDS.names, *names])
        kinds = {
            pa.types.is_boolean: pa.bool_(),
            pa.types.is_integer: pa.int64(),
            pa.types.is_floating: pa.float64(),
            pa.types.is_string: pa.string(),
        }
        later = [
            pa.field(field.name, kind)
            for field in _united(_schemas_of(store, of_scores), partial(_unfit, store, of_scores, wanted))
            for is_of, kind in kinds.items()
            if field.name not in taken and is_of(field.type)
        ]
        if len(later) > _MAX_SCORES:
            problem = f"{store.url_of(SCORES)} has {len(later):,} columns, more than {_MAX_SCORES}"
            raise JobError(problem, "move the parts that framefleet did not write out of the output")
        ours = {field.name: field for field in RECORD_FIELDS}
        # Also columns that no part has, but each must: reading one then says which part lacks it.
        united = _united(
            [*(there or [RECORD_FIELDS]), added, FIRST_FIELDS], partial(_unfit, store, parts, wanted)
        )
        records = [ours.get(field.name, field) for field in united]
        return cls(records=pa.schema(records), later=pa.schema(later), taken=taken)

    def schema(self, store: Store, names: Sequence[str] | None) -> pa.Schema:
        """Return all columns, or these in their order. Raises JobError for a column that nothing here has."""
        united = _united([self.records, self.later])
        if names is None:
            return united
        fields = {field.name: field for schema in (RECORD_FIELDS, united) for field in schema}
        for name in names:
            if name not in fields:
                problem = f"{store.url_of(RECORDS)} has no column {name!r}"
                raise JobError(problem, fix_of_missing(name, fields))
        return pa.schema([fields[name] for name in names])


def fix_of_missing(column: str, names: Iterable[str], *, source: str = "") -> str:
    """Return what to do about a column that records do not have. names: the columns that they have.

    source: what could add it to records of a job that is not rendered yet.
    """
    fix = did_you_mean(column, names)
    if section := section_adding(column):
        fix = f"only outputs of a job with `{section}:` have it"
    elif words := command_adding(column):
        return f"add {source}" if source else f"add it first: {command(*words)}"
    return either(fix, f"add {source}") if source else fix


def _paths(parts: Sequence[Part]) -> list[str]:
    return [part.path for part in parts]


def _schemas_of(store: Store, parts: Sequence[Part]) -> list[pa.Schema]:
    """Return the columns of parts. All parts of a run have those of its first, unless they replace others."""
    schemas = []
    for run, of_run in groupby(sorted(parts), lambda part: part.run):
        for part in of_run:
            schema, metadata = columns_of(store, part.path)
            schemas.append(schema)
            if run and REPLACES not in metadata:
                break
    return schemas


def _unfit(
    store: Store, parts: Sequence[Part], wanted: Collection[str] | None, fields: list[pa.Field]
) -> set[str]:
    """Return the columns of parts with a cell that their type does not hold, e.g. float64 not 2**53 + 1."""
    fields = [field for field in fields if wanted is None or field.name in wanted]
    if not fields:
        return set()
    try:
        for _ in read_parts(store, _paths(parts), pa.schema(fields)):
            pass
    except JobError:  # also of a damaged part, which is reported when its text is read
        if len(fields) == 1:
            return {fields[0].name}
        middle = len(fields) // 2
        halves = (fields[:middle], fields[middle:])
        return set().union(*(_unfit(store, parts, wanted, half) for half in halves))
    return set()


def _united(
    schemas: list[pa.Schema], unfit: Callable[[list[pa.Field]], Collection[str]] = lambda fields: ()
) -> pa.Schema:
    """Return one schema with the columns of all, in the order in which they are met.

    unfit: returns which of some columns, whose types differ, must be text.
    """
    fields: dict[str, pa.Field] = {}
    mixed: dict[str, None] = {}
    for field in (field for schema in schemas for field in schema):
        # Not as a writer chose to store it.
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        before = fields.get(field.name, pa.field(field.name, kind))
        both = [pa.schema([before]), pa.schema([(field.name, kind)])]
        try:
            (fields[field.name],) = pa.unify_schemas(both, promote_options="permissive")
        except pa.ArrowException:
            fields[field.name] = pa.field(field.name, pa.string())
        if not any({before.type, kind} <= same for same in ({fields[field.name].type, pa.null()}, _TEXTS)):
            mixed[field.name] = None
    for name in unfit([fields[name] for name in mixed if fields[name].type != pa.string()]):
        fields[name] = pa.field(name, pa.string())
    return pa.schema(fields.values())


def _counting_records(store: Store, paths: list[str], fields: list[pa.Field]) -> Iterator[pa.Table]:
    """Yield these columns of the records that count, as `record_tables` does, without scores."""
    schema = pa.schema(fields)
    counts = which_count(store, paths)
    waiting: list[pa.Table] = []
    num_rows = num_bytes = 0  # of these: counting all of them for each part takes longer than reading it
    for path, table, is_last in zip(paths, read_parts(store, paths, schema), counts, strict=True):
        if len(is_last) != len(table):
            raise JobError(f"{store.url_of(path)} was changed while it was read", "try it again")
        try:
            waiting.append(table.filter(pa.array(is_last)))
        except pa.ArrowException as error:  # columns of types that Arrow computes nothing with
            raise not_ours(store.url_of(path), str(error)) from error
        num_rows, num_bytes = num_rows + len(waiting[-1]), num_bytes + waiting[-1].nbytes
        if num_rows >= _ROWS_AT_ONCE or num_bytes >= _BYTES_AT_ONCE:
            yield from _in_pieces(waiting)
            waiting, num_rows, num_bytes = [], 0, 0
    yield from _in_pieces(waiting)


def _in_pieces(tables: list[pa.Table]) -> Iterator[pa.Table]:
    table = pa.concat_tables(tables) if tables else pa.table({})
    for start in range(0, len(table), _ROWS_AT_ONCE):
        yield table.slice(start, _ROWS_AT_ONCE)


def which_count(store: Store, paths: list[str]) -> list[npt.NDArray[np.bool_]]:
    """Return, part by part, which of its records is the last of its row."""
    # row_ids are 32 hex digits each: two numbers.
    numbers = [
        np.frombuffer(bytes.fromhex("".join(table["row_id"].to_pylist())), np.uint64).reshape(-1, 2)
        for table in read_parts(store, paths, _ROW_ID)
    ]
    if not numbers:
        return []
    ids = np.concatenate(numbers)
    order = np.lexsort((ids[:, 0], ids[:, 1]))  # stable: equal ones stay as they were written
    is_last = np.ones(len(ids), bool)
    is_last[order[:-1]] = (ids[order[:-1]] != ids[order[1:]]).any(axis=1)
    return np.split(is_last, np.cumsum([len(part_ids) for part_ids in numbers])[:-1])


def with_nulls(table: pa.Table, fields: Iterable[pa.Field]) -> pa.Table:
    """Return the table with the columns that it lacks of these, all null."""
    for field in fields:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def shaped(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with all columns of `schema`, in its order; those that it lacks are null."""
    return with_nulls(table, schema).select(schema.names).cast(schema)


class ScoreIndex:
    """The newest score of each clip, on disk, so that memory stays flat. First add every table, then join."""

    def __init__(self, fields: pa.Schema) -> None:
        """fields: of the scores, which are numbers, booleans or text."""
        self._fields = fields
        self._columns = [f"c{number}" for number in range(len(fields))]
        columns = ", ".join(["id TEXT", "clip TEXT", *self._columns, "PRIMARY KEY (id, clip)"])
        self._db = temporary_tables(
            "CREATE TABLE wanted (id TEXT PRIMARY KEY, clip TEXT, place INTEGER NOT NULL) WITHOUT ROWID;"
            f"CREATE TABLE scores ({columns}) WITHOUT ROWID;"
        )

    def add(self, table: pa.Table) -> None:
        """Add scores, newer than those before. A null says nothing: an earlier score stays."""
        cells = (table[name].to_pylist() for name in self._fields.names)
        newer = ", ".join(f"{column} = coalesce(excluded.{column}, {column})" for column in self._columns)
        self._db.executemany(
            f"INSERT INTO scores VALUES (?, ?{', ?' * len(self._columns)}) "
            f"ON CONFLICT (id, clip) DO UPDATE SET {newer}",
            zip(table["row_id"].to_pylist(), clips_of(table), *cells, strict=True),
        )

    def joined(self, table: pa.Table) -> pa.Table:
        """Return the table with the scores of its rows (no row twice); a score replaces an earlier value.

        A score of this clip goes before one of any clip. Raises JobError if a score does not fit.
        """
        self._db.execute("DELETE FROM wanted")
        rows = zip(table["row_id"].to_pylist(), clips_of(table), range(len(table)), strict=True)
        self._db.executemany("INSERT INTO wanted VALUES (?, ?, ?)", rows)
        chosen = ", ".join(f"coalesce(own.{column}, other.{column})" for column in self._columns)
        query = (
            f"SELECT {chosen} FROM wanted LEFT JOIN scores AS own USING (id, clip) "
            f"LEFT JOIN scores AS other ON other.id = wanted.id AND other.clip = '{_ANY}' ORDER BY place"
        )
        for field, values in zip(self._fields, zip(*self._db.execute(query), strict=True), strict=True):
            place = table.schema.get_field_index(field.name)
            try:
                scores = pa.array(values).cast(field.type)
                if place < 0:
                    table = table.append_column(field, scores)
                else:
                    both = pc.coalesce(scores, table[field.name].cast(field.type))
                    table = table.set_column(place, field, both)
            except pa.ArrowException as error:
                raise JobError(
                    f"scores/ or records/ have a value of {field.name!r} that is not of type {field.type}: "
                    f"{error}",
                    "move the part with it, which framefleet did not write, out of the output",
                ) from error
        return table

    def close(self) -> None:
        self._db.close()


def clips_of(table: pa.Table) -> list[str]:
    """Return which clip each score is about, by its media_sha256; "" for any."""
    return [clip or _ANY for clip in table[OF_CLIP.names[0]].to_pylist()]
