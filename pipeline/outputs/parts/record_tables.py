"""In: an output. Out: its records that count, as tables of some thousand rows, whoever wrote its parts.

Parts of several versions and tables differ in their columns; here all have those of all. Scores that were
added later, `scores/part-*.parquet`, stand in the rows they are about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from framefleet.doors import record_columns
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.mistakes import nearest
from framefleet.pipeline.outputs.layout import RECORDS, SCORES
from framefleet.pipeline.outputs.parts.part_file import REPLACES, columns_of
from framefleet.pipeline.outputs.parts.part_names import Part, parts_in
from framefleet.pipeline.outputs.parts.parts import read_parts
from framefleet.pipeline.outputs.parts.records import (
    FIRST_FIELDS,
    RECORD_FIELDS,
    fields_named,
    may_come_later,
)
from framefleet.pipeline.outputs.parts.score_index import OF_CLIP, ScoreIndex
from framefleet.pipeline.outputs.parts.seals import live_parts
from framefleet.pipeline.outputs.stores.json_file import not_ours
from framefleet.pipeline.outputs.stores.store import Store

_ROWS_AT_ONCE = 4096
_BYTES_AT_ONCE = 64 << 20  # where rows carry megabytes
_ROW_ID = fields_named(FIRST_FIELDS, "row_id")
_MAX_SCORES = 500  # columns; SQLite's tables have at most 2,000


def record_schema_of(
    store: Store, parts: Sequence[Part] | None = None, *, columns: Sequence[str] | None = None
) -> pa.Schema:
    """Return every column that some record has: carried ones, ours, arguments, scores.

    Where parts differ in a type it is one that holds both, if need be text. parts: unset, all that count.
    columns: only these. Raises JobError for a column that nothing here has.
    """
    known = _Columns.of(store, live_parts(store) if parts is None else parts).all
    return known if columns is None else _chosen(store, known, columns)


def taken_columns(store: Store) -> frozenset[str]:
    """Return the columns that no score can have: those of records that are none, as carried ones."""
    return _Columns.of(store, live_parts(store)).taken


def record_tables(
    store: Store, columns: Sequence[str] | None = None, parts: Sequence[Part] | None = None
) -> Iterator[pa.Table]:
    """Yield the records that count, some thousand at a time, oldest first; of doubled rows the last alone.

    columns: in this order; None is all of `record_schema_of`; null where a part lacks one. Scores of
    `scores/` are joined by row_id and media_sha256, of several the newest. Raises JobError for a column that
    nothing here has. Each part is read twice: of some 25 bytes of memory a record it first tells which of
    doubles is the last. parts: as of `record_schema_of`.
    """
    parts = live_parts(store) if parts is None else parts
    known = _Columns.of(store, parts)
    schema = known.all if columns is None else _chosen(store, known.all, columns)
    paths = _paths(parts)
    later = pa.schema([field for field in schema if field.name in known.later.names])
    if not later.names:
        yield from (_shaped(table, schema) for table in _counting_records(store, paths, known, schema.names))
        return
    tables = _counting_records(store, paths, known, [*schema.names, *OF_CLIP.names])
    given = read_parts(store, _paths(parts_in(store, SCORES)), _ROW_ID, pa.schema([*OF_CLIP, *later]))
    with closing(ScoreIndex(later)) as index:
        for table in given:
            index.add(table)
        for table in tables:
            yield _shaped(index.joined(table), schema)


def doubled_rows(store: Store, parts: Sequence[Part]) -> dict[str, str]:
    """Return the row_ids that several records have, each with the path of the part whose record counts."""
    paths = _paths(parts)
    counts = _which_count(store, paths)
    doubled = {
        row_id
        for path, is_last in zip(paths, counts, strict=True)
        if not is_last.all()
        for row_id in _ids(store, path, ~is_last)
    }
    found: dict[str, str] = {}
    for path, is_last in zip(paths, counts, strict=True) if doubled else ():
        found |= {row_id: path for row_id in _ids(store, path, is_last) if row_id in doubled}
    return found


def _ids(store: Store, path: str, mask: npt.NDArray[np.bool_]) -> list[str]:
    (table,) = read_parts(store, [path], _ROW_ID)
    found: list[str] = table["row_id"].filter(pa.array(mask)).to_pylist()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """records: those of the parts. later: those of scores/. taken: those that scores/ cannot have."""

    records: pa.Schema
    later: pa.Schema
    taken: frozenset[str]

    @property
    def all(self) -> pa.Schema:
        return _united([self.records, self.later])

    @classmethod
    def of(cls, store: Store, parts: Sequence[Part]) -> _Columns:
        there = _schemas_of(store, parts)
        added = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in record_columns().items()])
        ours = [_our_field(field) for field in _united([*(there or [RECORD_FIELDS]), added])]
        told = (field.name for schema in there for field in schema if not may_come_later(field))
        taken = frozenset([*RECORD_FIELDS.names, *told])
        given = _united(_schemas_of(store, parts_in(store, SCORES)))
        later = [*filter(None, (_score_field(field) for field in given if field.name not in taken))]
        if len(later) > _MAX_SCORES:
            raise JobError(
                f"{store.url_of(SCORES)} has {len(later):,} columns, more than {_MAX_SCORES}",
                "move the parts that framefleet did not write out of the output",
            )
        return cls(records=pa.schema(ours), later=pa.schema(later), taken=taken)


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


def _our_field(field: pa.Field) -> pa.Field:
    return RECORD_FIELDS.field(field.name) if field.name in RECORD_FIELDS.names else field


def _score_field(field: pa.Field) -> pa.Field | None:
    """Return the column of a score; None for what is none."""
    kinds = {
        pa.types.is_boolean: pa.bool_(),
        pa.types.is_integer: pa.int64(),
        pa.types.is_floating: pa.float64(),
        pa.types.is_string: pa.string(),
    }
    return next((pa.field(field.name, kind) for is_of, kind in kinds.items() if is_of(field.type)), None)


def _united(schemas: list[pa.Schema]) -> pa.Schema:
    """Return one schema with the columns of all, in the order in which they are met."""
    fields: dict[str, pa.Field] = {}
    for field in (field for schema in schemas for field in schema):
        known = fields.get(field.name)
        fields[field.name] = _plain(field) if known is None else _one_field(known, _plain(field))
    return pa.schema(fields.values())


def _plain(field: pa.Field) -> pa.Field:
    """Return the field without a writer's own ways to store it."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return pa.field(field.name, kind)


def _one_field(one: pa.Field, other: pa.Field) -> pa.Field:
    try:
        (field,) = pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive")
    except pa.ArrowException:
        return pa.field(one.name, pa.string())
    return field


def _chosen(store: Store, known: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    fields = {field.name: field for schema in (RECORD_FIELDS, known) for field in schema}
    for name in columns:
        if name not in fields:
            near = nearest(name, fields)
            fix = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(fields)}"
            raise JobError(f"{store.url_of(RECORDS)} has no column {name!r}", fix)
    return pa.schema([fields[name] for name in columns])


def _counting_records(
    store: Store, paths: list[str], known: _Columns, names: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield these columns of the records that count, and row_id, as `record_tables` does, without scores."""
    wanted = [field for field in known.records if field.name in {*names, "row_id"}]
    first = pa.schema([field for field in wanted if field.name in FIRST_FIELDS.names])
    maybe = pa.schema([field for field in wanted if field.name not in FIRST_FIELDS.names])
    counts = _which_count(store, paths)
    tables = read_parts(store, paths, first, maybe)
    schema = pa.schema(wanted)
    waiting: list[pa.Table] = []
    num_rows = num_bytes = 0  # of these: to ask all of them again with each part takes longer than to read it
    for path, table, is_last in zip(paths, tables, counts, strict=True):
        if len(is_last) != len(table):
            raise JobError(f"{store.url_of(path)} was changed while it was read", "try it again")
        try:
            waiting.append(_shaped(table.filter(pa.array(is_last)), schema))
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


def _which_count(store: Store, paths: list[str]) -> list[npt.NDArray[np.bool_]]:
    """Return, part by part, which of its records is the last of its row."""
    found = [_numbers(table["row_id"]) for table in read_parts(store, paths, _ROW_ID)]
    if not found:
        return []
    ids = np.concatenate(found)
    order = np.lexsort((ids[:, 0], ids[:, 1]))  # stable: equal ones stay as they were written
    is_last = np.ones(len(ids), bool)
    is_last[order[:-1]] = (ids[order[:-1]] != ids[order[1:]]).any(axis=1)
    return np.split(is_last, np.cumsum([len(numbers) for numbers in found])[:-1])


def _numbers(row_ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return row_ids, which are 32 hex digits each, as two numbers each."""
    return np.frombuffer(bytes.fromhex("".join(row_ids.to_pylist())), np.uint64).reshape(-1, 2)


def _shaped(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with all columns of `schema`, in its order."""
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema.names).cast(schema)
