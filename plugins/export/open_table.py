"""From the records of an output to a table of Iceberg, Delta Lake or Lance: what is new, in one commit.

Clips stay where they are: the table's `uri` names them. Which parts of records a table has is written in the
commit that brings them, so an export that is killed leaves all of it or nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pydantic import TypeAdapter

from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.show.watch import Watch, wait_for
from framefleet.pipeline.errors import JobError, ServiceError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.outputs.layout import SCORES
from framefleet.pipeline.outputs.parts.record_tables import doubled_rows, record_schema_of, shaped
from framefleet.pipeline.outputs.parts.seals import Part, is_sealed, live_parts, parts_in, sealed_of
from framefleet.pipeline.outputs.query import records_where
from framefleet.pipeline.outputs.stores.store import Store, read_json
from framefleet.plugins.export.choice import ALL_COLUMNS, ExportChoice
from framefleet.plugins.export.shard import NOTES

CATALOG = "iceberg:"  # before the name of a table in a catalog of pyiceberg's own configuration
_NAME = "framefleet.records"  # of an Iceberg table in a folder
_OTHER = "choose another place, or empty this one"
_OURS = {NOTES, "catalog.db"}  # in a folder that holds no table yet
# What fsspec's S3 calls it, and what the libraries written in Rust do.
_S3 = {
    "key": "aws_access_key_id",
    "secret": "aws_secret_access_key",
    "token": "aws_session_token",
    "endpoint_url": "aws_endpoint_url",
    "region_name": "aws_region",
}

# Types and names that they do not have, which is not an error of its own with all of them.
_OF_SCHEMA = re.compile(r"Schema error|LanceError\(Schema\)|Invalid data type|Unsupported\w*Type")
_CLAIM = f"{NOTES}/table.json"
_IDENTITY = ("output", "where")  # of a table: where they differ, it is another one
_TRANSACTIONS = 1000  # of Lance that are looked through for our newest: others compact and index tables

TableState = dict[str, Any]


class OpenTable(Protocol):
    """A table that others read. Every write is one commit, which holds the new state."""

    def state(self) -> TableState | None:
        """Return what the newest commit of ours says; None where there is no table."""

    def write(self, rows: pa.RecordBatchReader, state: str, *, is_more: bool) -> None:
        """is_more: besides those that are there; else in their place."""


def export_table(
    store: Store, to: str, options: Mapping[str, Any], choice: ExportChoice, watch: Watch
) -> int:
    """Bring the table at `to` up to date with the records; return how many rows it has been given.

    New records are appended. Where earlier ones have changed or gone, or there are new scores or columns, the
    table is written anew, still in one commit. Raises JobError for another's table and for types that the
    format cannot hold, and ServiceError where the commit fails.
    """
    choice.check_table()
    assert choice.format in OPEN
    with ExitStack() as stack:
        if not to.startswith(CATALOG):
            place = Store(to, options)
            stack.enter_context(DriverLock(place.below(NOTES), renders=False))
        wait_for(watch, "reading the records")
        parts = live_parts(store)
        schema = _table_schema(store, parts, choice)
        table = OPEN[choice.format](to, dict(options))
        now = _state_of(store, choice, parts, schema)
        then = table.state()
        if then is not None:
            _check_same(to, then, now)
        elif not to.startswith(CATALOG):
            _claim(place, now)
        is_more = then is not None and _only_more(store, then, now, parts)
        new = [part for part in parts if is_more and not is_sealed(part, then["parts"])] if then else parts
        if is_more and not new:
            return 0
        wait_for(watch, f"writing {to}")
        num_rows, wrong = 0, list[JobError]()

        def counted() -> Iterator[pa.RecordBatch]:
            nonlocal num_rows
            try:
                for records in records_where(store, schema.names, choice.where, new if is_more else parts):
                    try:
                        rows = shaped(records, schema)
                    except pa.ArrowException as error:  # a number beyond int64, the largest of all formats
                        problem = f"a record has a value that the table cannot hold: {error}"
                        raise JobError(problem, "leave it out with --columns") from error
                    num_rows += len(rows)
                    yield from rows.to_batches()
            except JobError as error:  # which the library hides
                wrong.append(error)
                raise

        reader = pa.RecordBatchReader.from_batches(schema, counted())
        try:
            table.write(reader, json.dumps(now), is_more=is_more)
        except (JobError, ServiceError):
            raise
        except Exception as error:  # each library has its own, and those of what it is built on
            lines = str(error).splitlines() or [""]  # below, those written in Rust trace their calls
            message = public_text(f"{type(error).__name__}: {lines[0]}")
            if wrong:
                raise wrong[0] from error
            is_unfit = isinstance(error, ValueError | TypeError | NotImplementedError | pa.ArrowException)
            if is_unfit or _OF_SCHEMA.search(message):
                problem = f"{choice.format} cannot hold these records: {message}"
                raise JobError(problem, "leave a column out with --columns") from error
            problem = f"{to} could not be written: {message}"
            raise ServiceError(problem, "run the same command again") from error
        return num_rows


def _table_schema(store: Store, parts: list[Part], choice: ExportChoice) -> pa.Schema:
    """Return the columns, in types that all three formats have."""
    is_all = choice.columns in (None, ALL_COLUMNS)
    columns = None if is_all else list(dict.fromkeys(["row_id", *(choice.columns or ())]))
    record_schema = record_schema_of(store, parts, columns=columns)
    unsigned = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    kinds = {pa.null(): pa.string(), **dict.fromkeys(unsigned, pa.int64())}
    return pa.schema([pa.field(field.name, kinds.get(field.type, field.type)) for field in record_schema])


def _state_of(store: Store, choice: ExportChoice, parts: list[Part], schema: pa.Schema) -> TableState:
    state = {
        "output": store.url_of(""),
        "where": choice.where,
        "columns": str(schema),
        "parts": sealed_of(parts),
        "scores": [part.path for part in parts_in(store, SCORES)],
        "others": [part.path for part in parts if not part.run],  # that people have put there
    }
    as_json: TableState = json.loads(json.dumps(state))
    return as_json


def _only_more(store: Store, then: TableState, now: TableState, parts: list[Part]) -> bool:
    """Tell whether the rows that the table has are still right, so that only others are to be added."""
    if any(then.get(name, []) != now[name] for name in ("columns", "scores", "others")):
        return False
    there = {(part.run, part.number) for part in parts}
    wanted = {
        (run, number)
        for run, stretches in then["parts"].items()
        for first, last in stretches
        for number in range(first, last + 1)
    }
    new = {part.path for part in parts if not is_sealed(part, then["parts"])}
    return wanted <= there and not new & set(doubled_rows(store, parts).values())


def _claim(place: Store, now: TableState) -> None:
    """Note whose first commit begins there, so that it can begin again. Raises JobError for another's."""
    ours = {name: now[name] for name in _IDENTITY}
    try:
        theirs = read_json(place, _CLAIM, TypeAdapter(dict[str, Any]), fix=_OTHER)
    except FileNotFoundError:
        theirs = ours
        if any(path.partition("/")[0] not in _OURS for path in place.list("")):
            raise JobError(f"{place.url_of('')} holds other files", _OTHER) from None
        place.write(_CLAIM, json.dumps(ours).encode())
    _check_same(place.url_of(""), theirs, ours)


def _check_same(to: str, theirs: TableState, ours: TableState) -> None:
    if other := [name for name in _IDENTITY if theirs.get(name) != ours[name]]:
        raise JobError(f"{to} has the records of another export: {', '.join(other)} differ", _OTHER)


class _Delta:
    def __init__(self, to: str, options: dict[str, Any]) -> None:
        self._library = _library("deltalake", "delta")
        self._to, self._options = _place(to), _rust_options(options)

    def state(self) -> TableState | None:
        if not self._library.DeltaTable.is_deltatable(self._to, self._options):
            return None
        table = self._library.DeltaTable(self._to, storage_options=self._options)
        return _newest(commit.get("framefleet") for commit in table.history())

    def write(self, rows: pa.RecordBatchReader, state: str, *, is_more: bool) -> None:
        self._library.write_deltalake(
            self._to,
            rows,
            mode="append" if is_more else "overwrite",
            schema_mode="merge" if is_more else "overwrite",
            storage_options=self._options,
            commit_properties=self._library.CommitProperties(custom_metadata={"framefleet": state}),
        )


class _Lance:
    def __init__(self, to: str, options: dict[str, Any]) -> None:
        os.environ.setdefault("LANCE_LOG", "error")  # its warnings are of what we do on purpose
        self._library = _library("lance", "lance")
        self._to, self._options = _place(to), _rust_options(options)

    def state(self) -> TableState | None:
        try:
            table = self._library.dataset(self._to, storage_options=self._options)
        except ValueError:  # there is none
            return None
        done = filter(None, table.get_transactions(_TRANSACTIONS))
        return _newest(one.transaction_properties.get("framefleet") for one in done)

    def write(self, rows: pa.RecordBatchReader, state: str, *, is_more: bool) -> None:
        self._library.write_dataset(
            rows,
            self._to,
            mode="append" if is_more else "overwrite",
            storage_options=self._options,
            transaction_properties={"framefleet": state},
        )


class _Iceberg:
    """In a catalog of the user's, or in a folder of this machine, whose catalog is a file of SQLite."""

    def __init__(self, to: str, options: dict[str, Any]) -> None:
        load_catalog = _library("pyiceberg.catalog", "iceberg").load_catalog

        if to.startswith(CATALOG):
            catalog, _, self._name = to.removeprefix(CATALOG).partition(".")
            if "." not in self._name:
                raise JobError(f"{to} names no table", "write iceberg:CATALOG.NAMESPACE.TABLE")
            self._catalog = load_catalog(catalog)
            return
        folder = _place(to)
        if "://" in folder:
            raise JobError(
                f"{to} is not a folder of this machine, and Iceberg needs a catalog for it",
                "configure the catalog for pyiceberg, and write iceberg:CATALOG.NAMESPACE.TABLE",
            )
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._name = _NAME
        uri = f"sqlite:///{folder}/catalog.db"
        self._catalog = load_catalog("framefleet", type="sql", uri=uri, warehouse=folder)

    def state(self) -> TableState | None:
        if not self._catalog.table_exists(self._name):
            return None
        commits = reversed(self._catalog.load_table(self._name).snapshots())
        return _newest(one.summary.additional_properties.get("framefleet") for one in commits if one.summary)

    def write(self, rows: pa.RecordBatchReader, state: str, *, is_more: bool) -> None:
        properties = {"framefleet": state}
        if not self._catalog.table_exists(self._name):
            self._catalog.create_namespace_if_not_exists(self._name.rpartition(".")[0])
            with self._catalog.create_table_transaction(self._name, rows.schema) as transaction:
                transaction.append(rows, snapshot_properties=properties)
            return
        if is_more:
            self._catalog.load_table(self._name).append(rows, snapshot_properties=properties)
            return
        with self._catalog.load_table(self._name).transaction() as transaction:
            with transaction.update_schema() as update:
                update.union_by_name(rows.schema)
            transaction.overwrite(rows, snapshot_properties=properties)


OPEN: Mapping[str, Callable[[str, dict[str, Any]], OpenTable]] = {
    "iceberg": _Iceberg,
    "delta": _Delta,
    "lance": _Lance,
}


def _library(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        problem = f"exports to {extra} need {name}: {error}"
        raise JobError(problem, f"pip install 'framefleet[{extra}]'") from error


def _newest(states: Iterator[str | None]) -> TableState | None:
    """Return the first state. A table that has none is somebody else's: {} differs from any of ours."""
    newest = next(filter(None, states), None)
    return json.loads(newest) if newest else {"output": None, "where": None}


def _place(to: str) -> str:
    """Return a path or URL as the libraries take it."""
    return to if "://" in to else str(Path(to).resolve())


def _rust_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Return options of fsspec's S3 as libraries written in Rust name them; others as they are."""
    flat = {**options, **(options.get("client_kwargs") or {})}
    by_name = {_S3.get(name, name): str(value) for name, value in flat.items() if not isinstance(value, dict)}
    is_plain = by_name.get("aws_endpoint_url", "").startswith("http://")
    return by_name | ({"allow_http": "True"} if is_plain else {})
