"""From an output to the rows that its gallery shows: its records, and what failed, as Arrow tables.

Records may be anybody's: a clip is named only where a record of ours has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.layout import PREVIEWS, RECORDS, preview_path, recorded_path
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of, record_tables
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, RECORD_FIELDS, told_arguments
from framefleet.pipeline.outputs.row_states import failed_tables
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.plugins.pages.gallery.blocks import Role

_MAX_ARGUMENTS = 200  # that have columns: no call has as many, and rows may have made up any number of names
_OURS = {*RECORD_FIELDS.names, *FAILURE_FIELDS.names}


def shown_records(store: Store) -> Iterator[pa.Table]:
    """Yield the records, with a column for each scalar argument; paths are those of files of ours."""
    previews: set[str] | None = None
    argument_names: set[str] = set()
    column_names = record_schema_of(store).names  # of earlier versions without the two
    columns = dict.fromkeys([*column_names, "path", "preview_path"])
    for table in record_tables(store, list(columns)):
        rows = table.select(["row_id", "uri", "path", "preview_path"]).to_pylist()
        if previews is None and any(row["preview_path"] is None for row in rows):
            previews = set(store.list(PREVIEWS))  # made later, or by a worker that was cut off
        places = [_places(row, previews or set()) for row in rows]
        for number, name in enumerate(("path", "preview_path")):
            at = table.column_names.index(name)
            table = table.set_column(at, name, pa.array([place[number] for place in places], pa.string()))
        table = table.drop_columns(["uri"])  # where it was first; `path` says where it is
        yield _with_arguments(table, argument_names)


def shown_failures(store: Store) -> Iterator[pa.Table]:
    """Yield the rows that failed and have no record, with every scalar argument as a column."""
    argument_names: set[str] = set()
    for table in failed_tables(store):
        yield _with_arguments(table, argument_names)


def roles_in(table: pa.Table) -> dict[str, Role]:
    """Return what each column is: an argument of the pipeline, framefleet's own, or carried along."""
    arguments = {name for text in table["arguments"].unique().to_pylist() for name, _ in _scalars(text)}
    arguments.add("seed")
    return {
        name: "argument" if name in arguments else "record" if name in _OURS else "carried"
        for name in table.column_names
    }


def _places(row: Mapping[str, Any], previews: Collection[str]) -> tuple[str | None, str | None]:
    """Return where a row's clip and its still lie; None for what cannot be ours, or was never made."""
    try:
        clip = recorded_path(row, RECORDS)
    except JobError:
        return None, None
    still = preview_path(clip)
    return clip, still if still == row["preview_path"] or still in previews else None


def _with_arguments(table: pa.Table, named: set[str]) -> pa.Table:
    """Return the table with a column for each scalar of `arguments` that it has none for.

    named: those that tables before this one got; these are added to it.
    """
    coded = table["arguments"].combine_chunks().dictionary_encode()
    arguments_of = [dict(_scalars(text)) for text in coded.dictionary.to_pylist()]
    names = {name: None for arguments in arguments_of for name in arguments}
    for name in names:
        if name not in table.column_names and (name in named or len(named) < _MAX_ARGUMENTS):
            named.add(name)
            values = _column([arguments.get(name) for arguments in arguments_of])
            table = table.append_column(name, values.take(coded.indices))
    return table


def _scalars(arguments: str) -> Iterator[tuple[str, Any]]:
    for name, value in told_arguments({"arguments": arguments}).items():
        if isinstance(value, str | int | float):
            yield _whole(name), _whole(value) if isinstance(value, str) else value


def _whole(text: str) -> str:
    """Return text without halves of characters, which JSON may have and Arrow has not."""
    return text.encode("utf-8", "replace").decode()


def _column(values: list[Any]) -> pa.Array:
    """Return values of one type; as text, where they have several."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
