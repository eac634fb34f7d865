"""An output: the clips, records and failures of a job, for all code that reads them.

layout.py lists what is where, who writes it and what makes it count. job.json says what the output was made
with; each part of its records repeats that.

A record may be anybody's: it is checked here whether its files are as it says, and what is in them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from weakref import WeakSet

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, TypeAdapter

from framefleet.pipeline.errors import JobError, NoFile, StoreError, count_text, not_ours
from framefleet.pipeline.guards.mistakes import expected, folder_meant
from framefleet.pipeline.outputs import layout, row_states
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.parts import seals
from framefleet.pipeline.outputs.parts.part_file import is_unreadable, num_rows_of
from framefleet.pipeline.outputs.parts.parts import PartWriter, find_record, job_in_parts, read_parts
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of, record_tables
from framefleet.pipeline.outputs.parts.records import ROW_FIELDS, Record, fields_named
from framefleet.pipeline.outputs.parts.seals import Part, live_parts, parts_in
from framefleet.pipeline.outputs.query import records_where
from framefleet.pipeline.outputs.stores.store import Store, Value, read_as, read_json
from framefleet.pipeline.plugin import clip_suffixes, inner_outputs

log = logging.getLogger(__name__)

FRAMES_OF = ("row_id", "uri", "path", "bytes", "media_sha256")  # what `recorded_frames` needs of a record
MAX_CLIP_BYTES = 1 << 30  # of a clip that is read whole

Unsound = Literal["missing", "size", "bytes", "unreadable"]
HOW: Mapping[Unsound, str] = {
    "missing": "it is gone",
    "size": "it has another size",
    "bytes": "it has other bytes",
    "unreadable": "it cannot be read",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    path: str
    sha256: str
    size: int | None  # None: the record does not say


def recorded_clip(record: Mapping[str, Any], where: str = layout.RECORDS) -> RecordedFile:
    """Return a record's clip. Raises JobError for a path or size that no clip of this row has."""
    path = layout.recorded_path(record, where)
    if record["bytes"] < 0:
        raise not_ours(where, f"the clip of {record['row_id']} has {record['bytes']:,} bytes")
    return RecordedFile(path=path, sha256=record["media_sha256"], size=record["bytes"])


def recorded_extras(record: Mapping[str, Any]) -> RecordedFile | None:
    """Return the file of arrays next to a clip, if any. Raises as `recorded_clip` does."""
    return _second_file(record, layout.EXTRAS, "extra_outputs", "the arrays")


def recorded_files(record: Mapping[str, Any]) -> list[RecordedFile]:
    """Return all files that a record names, except its preview. Raises as `recorded_clip` does."""
    derived = _second_file(record, layout.DERIVED, "derived", "the derived clip")
    return [file for file in (recorded_clip(record), recorded_extras(record), derived) if file]


def _second_file(record: Mapping[str, Any], folder: str, columns: str, what: str) -> RecordedFile | None:
    """columns: how the names of its columns begin."""
    sha256, path = record.get(f"{columns}_sha256"), record.get(f"{columns}_path") or ""
    if sha256 is None:
        return None
    if not path.startswith(f"{folder}/") or layout.row_named_by(path) != record["row_id"]:
        raise not_ours(layout.RECORDS, f"the path of {what} of {record['row_id']} is {path!r}")
    return RecordedFile(path=path, sha256=sha256, size=record.get(f"{columns}_bytes"))


def sound_content(store: Store, file: RecordedFile) -> bytes | Unsound:
    """Return the bytes of a file if it is as its record says; else what is wrong with it."""
    try:
        content = store.read(file.path, None if file.size is None else file.size + 1)
    except (FileNotFoundError, StoreError) as error:
        return why_unsound(store, error)
    if file.size not in (None, len(content)):
        return "size"
    return content if hashlib.sha256(content).hexdigest() == file.sha256 else "bytes"


def why_unsound(store: Store, error: FileNotFoundError | StoreError) -> Unsound:
    """Return why a file was not read. Raises the error if no file can be read."""
    if isinstance(error, FileNotFoundError | NoFile):
        return "missing"
    if not is_unreadable(store, error):
        raise error
    return "unreadable"


def recorded_frames(store: Store, record: Mapping[str, Any]) -> Frames:
    """Return uint8 RGB (T, H, W, 3). Raises StoreError when the clip is gone or its store does not answer,
    JobError when it is another.
    """
    from framefleet.pipeline.outputs.media.media import decode  # imports av

    file = recorded_clip(record, store.url_of(layout.RECORDS))
    where = store.url_of(file.path)
    if record["bytes"] > MAX_CLIP_BYTES:
        raise JobError(f"{where} has more than {MAX_CLIP_BYTES:,} bytes", "leave it out with a condition")
    content = _content(store, file)
    try:
        return decode(content)
    except StoreError as error:
        if (suffix := f".{file.path.partition('.')[2]}") in clip_suffixes():
            problem = f"{where} cannot be decoded: {suffix} is the format of a plugin"
            raise JobError(problem, "leave it out with a condition") from error
        raise JobError(f"{where}: {error.problem}", error.fix) from error


def _content(store: Store, file: RecordedFile) -> bytes:
    where, content = store.url_of(file.path), sound_content(store, file)
    if content == "missing":
        raise StoreError(f"{where} is gone, but has a record", "put it back, or run `framefleet repair`")
    if not isinstance(content, bytes):
        problem = f"{where} is not what was committed: {HOW[content]}"
        raise JobError(problem, "put it back, or run `framefleet repair`")
    return content


class _Claimed(BaseModel):
    job: dict[str, Any]


_CLAIMED = TypeAdapter(_Claimed)


@dataclass(frozen=True, slots=True)
class Output:
    """An output, which can be read at any time: during a run, it shows what is committed so far.

    store: its files. Every method reads them again, and raises StoreError if they cannot be read, and
    JobError for a file that framefleet did not write, or that is damaged.
    """

    store: Store
    _parts: tuple[Part, ...] | None = None  # the parts of records to read; None: all that count at that time

    def __post_init__(self) -> None:
        expected(self.store, Store, "store", "open an output by framefleet.open_output(...)")

    @classmethod
    def open(cls, place: str | Store, storage_options: Mapping[str, Any] | None = None) -> Output:
        """Return the output in a store, or at a path or URL, in which {date} stands for today's date in UTC.

        Raises JobError if there is none, not even an inner one.
        """
        store = place if isinstance(place, Store) else Store(layout.dated(place), storage_options)
        output = cls(store)
        if not output.is_begun and not output.inner:
            if added := row_states.added_in(store):
                rows = count_text(sum(num_rows_of(store, path) for path in added), "added row")
                problem = f"{output.url} has no run yet, only {rows}"
                raise JobError(problem, "run its job with this output, which renders them too")
            fix = None
            if isinstance(place, str) and "://" not in place:
                fix = folder_meant(layout.dated(place), [layout.CLAIM])
            problem = f"{output.url} does not exist, or is not an output"
            raise JobError(f"{problem}: it has neither {layout.CLAIM} nor records", fix or "check the path")
        return output

    @classmethod
    def open_rendered(cls, place: str, storage_options: Mapping[str, Any] | None = None) -> Output:
        """Do what `open` does, and also raise JobError if there are only inner outputs."""
        output = cls.open(place, storage_options)
        if not output.is_begun:
            raise output.no_records()
        return output

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return self.store.url_of("")

    @property
    def is_begun(self) -> bool:
        """Whether a driver has begun to render the job's own rows, or some are done."""
        return self.store.exists(layout.CLAIM) or bool(
            self.store.list(layout.DRIVERS) or self.store.list(layout.RECORDS)
        )

    @property
    def inner(self) -> Mapping[str, Output]:
        """Its inner outputs by name, which the job has rendered to choose rows."""
        outputs = {
            name: section
            for name, section in inner_outputs().items()
            if (inner := self.store.below(name)).list(layout.DRIVERS) or parts_in(inner, layout.RECORDS)
        }
        try:
            claim = find_claim_as(self.store, _CLAIMED) if outputs else None
        except JobError:  # `verify` reports it as damage, and `repair` puts it back
            return {}
        return {
            name: Output(self.store.below(name))
            for name, section in outputs.items()
            if claim is None or claim.job.get(section) is not None  # else a folder of that name
        }

    def counts(self) -> row_states.OutputCounts:
        """Return how many rows are done, failed and left; memory does not grow with them."""
        return row_states.count_rows(self.store)

    def records(
        self, columns: Sequence[str] | None = None, *, where: str | None = None
    ) -> Iterator[pa.Table]:
        """Yield the records, oldest first, some thousand at a time; of a row that has two, the last.

        columns: None: all, with scores and columns of the table. where: a condition on a record in SQL, e.g.
        "sharpness > 0.4". Raises JobError for a column that no record has.
        """
        if where is None:
            return record_tables(self.store, columns, self._parts)
        wanted = self.schema(columns).names
        return (table.select(wanted) for table in records_where(self.store, wanted, where, self._parts))

    def schema(self, columns: Sequence[str] | None = None) -> pa.Schema:
        """Return the schema of `records` with these columns, or with all. Raises the same errors."""
        return record_schema_of(self.store, self._parts, columns=columns)

    def record(self, row_id: str) -> Record:
        """Return the record of a row_id, its first digits (four or more) or the name of a clip."""
        return find_record(self.store, row_id, self._parts)

    def holding(self, row_ids: Collection[str]) -> Output:
        """Return the output with only those parts of its records that have any of these rows."""
        wanted = pa.array(row_ids, pa.string())
        parts = live_parts(self.store) if self._parts is None else self._parts
        tables = zip(parts, row_states.row_ids_in(self.store, parts), strict=True)
        matching = (part for part, table in tables if pc.any(pc.is_in(table["row_id"], wanted)).as_py())
        return replace(self, _parts=tuple(matching))

    def now(self) -> Output:
        """Return the output with only the records that it has now."""
        return replace(self, _parts=tuple(live_parts(self.store)))

    def since(self, earlier: Output) -> Output:
        """Return the output with only the records that it has now, but did not have at `earlier.now()`."""
        before = frozenset(earlier._parts or ())
        return replace(self, _parts=tuple(part for part in live_parts(self.store) if part not in before))

    def newest(self, num_parts: int) -> Output:
        """Return the output with only the records in the parts that were written last."""
        return replace(self, _parts=tuple(live_parts(self.store)[-num_parts:]))

    def version(self) -> Mapping[str, Any]:
        """Return, as a JSON value, which records it has; see `at`."""
        return seals.sealed_of(live_parts(self.store) if self._parts is None else self._parts)

    def at(self, version: object) -> Output | None:
        """Return the output with only the records of this version; None if some are in other parts by now.

        Raises ValueError for what is not a version.
        """
        sealed = seals.SEALED.validate_python(version)
        parts = [part for part in live_parts(self.store) if seals.is_sealed(part, sealed)]
        return replace(self, _parts=tuple(parts)) if seals.sealed_of(parts) == sealed else None

    def num_newer_parts(self) -> int:
        """Return how many parts of records there are that it does not read."""
        return len(live_parts(self.store)) - len(self._parts) if self._parts is not None else 0

    def failures(self, *, with_inner: bool = True) -> Iterator[row_states.FailedRow]:
        """Yield the rows that failed and have no record, the newest first; inner outputs come first."""
        for name, inner in self.inner.items() if with_inner else ():
            yield from (replace(row, inner=name) for row in row_states.failed_rows(inner.store))
        yield from row_states.failed_rows(self.store)

    def failure_tables(self) -> Iterator[pa.Table]:
        """Yield the rows of `failures`, without inner outputs, as tables of failures/."""
        return row_states.failed_tables(self.store)

    def log(self, row_id: str | None = None) -> Iterator[row_states.LogLine]:
        """Yield what happened to a row, or to all rows, the oldest first."""
        return row_states.log_lines(self.store, row_id)

    def tables(self, folder: str, fields: pa.Schema | None = None) -> Iterator[pa.Table]:
        """Yield the parts of a folder, e.g. a plugin's, as they were written. fields: None: all columns."""
        return read_parts(self.store, [part.path for part in parts_in(self.store, folder)], fields)

    def writer(self, folder: str, schema: pa.Schema, *, job: str = "") -> PartWriter:
        """Return a writer that adds rows to a folder as parts. job: the text of job.json."""
        return PartWriter(self.store, folder, schema, run=seals.new_run(0), job=job)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of the table that can be rendered: row_index, row_id, and carried columns.

        As the table was when it was last rendered, in its order. columns: None: all; else some of `Row`.
        """
        return self.tables(layout.ROWS, None if columns is None else fields_named(ROW_FIELDS, *columns))

    def invalid_rows(self) -> Iterator[pa.Table]:
        """Yield the rows that were left out by `on_invalid: skip`: their columns, row_index, reason, fix."""
        return self.tables(layout.INVALID)

    def frames(self, record: Mapping[str, Any]) -> Frames:
        """Return the frames of a record's clip: uint8 RGB (T, H, W, 3).

        record: with row_id, uri, path, bytes and media_sha256. Raises StoreError if the clip is gone, and
        JobError if it is not what was committed.
        """
        return recorded_frames(self.store, record)

    def files(self, record: Mapping[str, Any]) -> Iterator[tuple[str, bytes | Unsound]]:
        """Yield the path of each file of a record except its preview, with its content, or what is wrong.

        The clip comes first. Raises JobError for a path or size that no file of this row has.
        """
        for file in recorded_files(record):
            yield file.path, sound_content(self.store, file)

    def extras(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tensors that a record's row has besides its clip, by name. Raises as `frames` does."""
        file = recorded_extras(record)
        if file is None:
            return {}
        from safetensors.torch import load  # imports torch

        return load(_content(self.store, file))

    def no_records(self) -> JobError:
        """Return the error for an output in which no row is done."""
        for name, inner in self.inner.items():
            problem = f"{self.url} has {name}, but no row in full so far"
            return JobError(problem, f"{name} are an output of their own: give {inner.url}")
        return JobError(
            f"{self.store.url_of(layout.RECORDS)} has no records", "give the output of a render job"
        )


def open_output(output: str, *, storage_options: Mapping[str, Any] | None = None) -> Output:
    """Return an output, for everything that is in it. Raises JobError if there is none.

    output: a path or URL. storage_options: what fsspec takes.
    """
    return Output.open(output, storage_options)


def outputs_in(store: Store) -> dict[str, Store]:
    """Return the outputs that hold something: "" is this one, the others are the inner ones by name."""
    inner = {name: output.store for name, output in Output(store).inner.items()}
    is_own = not inner or parts_in(store, layout.RECORDS) or store.exists(layout.CLAIM)
    return {"": store, **inner} if is_own else inner


_WARNED = WeakSet[Store]()  # stores whose job.json is lost: one warning is enough


def find_claim_as(store: Store, kind: TypeAdapter[Value]) -> Value | None:
    """Return what job.json says, or what parts repeat if it is lost or damaged; None for a new output.

    Raises JobError if it is damaged, or lost although there are records, and no part repeats it.
    """
    try:
        return read_json(store, layout.CLAIM, kind)
    except FileNotFoundError:
        if not parts_in(store, layout.RECORDS):
            return None
        lost = JobError(
            f"{store.url_of('')} has records, but no {layout.CLAIM} that names their job",
            "put it back, or choose another output",
        )
    except JobError as error:
        lost = error
    if (claim := claim_in_parts_as(store, kind)) is None:
        raise lost
    if store not in _WARNED:
        _WARNED.add(store)
        log.warning("%s: %s; the parts of its records have it", store.url_of(layout.CLAIM), lost.problem)
    return claim


def claim_in_parts_as(store: Store, kind: TypeAdapter[Value]) -> Value | None:
    """Return what job.json says, from the newest part that repeats it; None if no part does."""
    text = job_in_parts(store)
    return None if text is None else read_as(kind, text, store.url_of(layout.RECORDS))
