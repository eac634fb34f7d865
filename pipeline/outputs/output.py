"""An output: where the clips, records and failures of a job are. Whoever looks at one asks it here.

layout.py lists what lies where, who writes it and what makes it count. job.json says what the output was made
with; each part of its records repeats that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, TypeAdapter

from framefleet.doors import inner_outputs
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.mistakes import expected
from framefleet.pipeline.outputs import row_states
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.layout import CLAIM, DRIVERS, INVALID, RECORDS, ROWS
from framefleet.pipeline.outputs.parts.part_file import read_part
from framefleet.pipeline.outputs.parts.parts import job_in_parts
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of, record_tables
from framefleet.pipeline.outputs.parts.seals import parts_in
from framefleet.pipeline.outputs.query import columns_in, rows_where
from framefleet.pipeline.outputs.record_files import recorded_frames, recorded_tensors
from framefleet.pipeline.outputs.stores.store import Store, Value, read_as, read_json

log = logging.getLogger(__name__)


class _Claimed(BaseModel):
    job: dict[str, Any]


_CLAIMED = TypeAdapter(_Claimed)


@dataclass(frozen=True, slots=True)
class Output:
    """An output, read at any time: of a run under way it shows what is committed so far.

    store: its files. Every method reads them anew, and raises StoreError where they cannot be read, and
    JobError for a file that framefleet did not write, or that is damaged.
    """

    store: Store

    def __post_init__(self) -> None:
        expected(self.store, Store, "store", "open an output by framefleet.open_output(...)")

    @classmethod
    def open(cls, place: str, storage_options: Mapping[str, Any] | None = None) -> Output:
        """Return the output at a path or URL. Raises JobError where there is none, not even an inner one."""
        output = cls(Store(place, storage_options))
        if not output.is_begun and not output.inner:
            problem = f"{output.url} does not exist, or is not an output: it has neither {CLAIM} nor records"
            raise JobError(problem, "check the path")
        return output

    @classmethod
    def open_rendered(cls, place: str, storage_options: Mapping[str, Any] | None = None) -> Output:
        """Do what `open` does, and raise JobError where inner outputs are all there is."""
        output = cls.open(place, storage_options)
        if not output.is_begun:
            raise output.no_records()
        return output

    @property
    def url(self) -> str:
        """Where it lies, without credentials."""
        return self.store.url_of("")

    @property
    def is_begun(self) -> bool:
        """Whether a driver has begun to render the job's own rows, or some are done."""
        return self.store.exists(CLAIM) or bool(self.store.list(DRIVERS) or self.store.list(RECORDS))

    @property
    def inner(self) -> Mapping[str, Output]:
        """The outputs in it that its job has rendered to choose rows, by name (see `doors.JobRunner`)."""
        outputs = {
            name: runner.section
            for name, runner in inner_outputs().items()
            if (inner := self.store.below(name)).list(DRIVERS) or parts_in(inner, RECORDS)
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

        columns: unset, all, scores and columns of the table too. where: a condition on a record in SQL, as
        "sharpness > 0.4". Raises JobError for a column that no record has.
        """
        if where is None:
            return record_tables(self.store, columns)
        schema = record_schema_of(self.store)
        wanted = list(schema.names if columns is None else columns)
        names = dict.fromkeys([*wanted, *columns_in(where, schema)])
        tables = rows_where(record_tables(self.store, list(names)), where)
        return (table.select(wanted) for table in tables)

    def failures(self) -> Iterator[row_states.FailedRow]:
        """Yield the rows that failed and have no record, the newest first; inner outputs come first."""
        for name, one in self.inner.items():
            yield from (replace(row, inner=name) for row in row_states.failed_rows(one.store))
        yield from row_states.failed_rows(self.store)

    def log(self, row_id: str | None = None) -> Iterator[row_states.LogLine]:
        """Yield what happened to a row, or to all rows, the oldest first; see `outputs/row_states.py`."""
        return row_states.log_lines(self.store, row_id)

    def rows(self) -> Iterator[pa.Table]:
        """Yield the rows of the table that can be rendered: row_index, row_id, and what they carry.

        As the table was when it was last rendered, in its order.
        """
        for part in parts_in(self.store, ROWS):
            yield read_part(self.store, part.path, None)

    def invalid_rows(self) -> Iterator[pa.Table]:
        """Yield the rows that were left out by `on_invalid: skip`: their columns, row_index, reason, fix."""
        for part in parts_in(self.store, INVALID):
            yield read_part(self.store, part.path, None)

    def frames(self, record: Mapping[str, Any]) -> Frames:
        """Return the frames of a record's clip: uint8 RGB (T, H, W, 3).

        record: with row_id, uri, path, bytes and media_sha256. Raises StoreError where the clip is gone, and
        JobError where it is not what was committed.
        """
        return recorded_frames(self.store, record)

    def extras(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tensors that a record's row has besides its clip, by name. Raises as `frames` does."""
        return recorded_tensors(self.store, record)

    def no_records(self) -> JobError:
        """Return the error for an output in which no row is done."""
        for name, one in self.inner.items():
            problem = f"{self.url} has {name}, and no row in full so far"
            return JobError(problem, f"{name} are an output of their own: give {one.url}")
        return JobError(f"{self.store.url_of(RECORDS)} has no records", "give the output of a render job")


def open_output(output: str, *, storage_options: Mapping[str, Any] | None = None) -> Output:
    """Return an output, for everything that is in it. Raises JobError where there is none.

    output: a path or URL. storage_options: what fsspec takes.
    """
    return Output.open(output, storage_options)


def find_claim_as(store: Store, kind: TypeAdapter[Value]) -> Value | None:
    """Return what job.json says, or the parts where it is lost or damaged; None where the output is nobody's.

    Raises JobError where it is damaged, or lost although there are records, and no part has it.
    """
    try:
        return read_json(store, CLAIM, kind)
    except FileNotFoundError:
        if not parts_in(store, RECORDS):
            return None
        lost = JobError(
            f"{store.url_of('')} has records, but no {CLAIM}, which says of what job",
            "put it back, or choose another output",
        )
    except JobError as error:
        lost = error
    if (claim := claim_in_parts_as(store, kind)) is None:
        raise lost
    log.warning("%s: %s; the parts of its records have it", store.url_of(CLAIM), lost.problem)
    return claim


def claim_in_parts_as(store: Store, kind: TypeAdapter[Value]) -> Value | None:
    """Return what job.json says by the newest part that has it; None where none does."""
    text = job_in_parts(store)
    return None if text is None else read_as(kind, text, store.url_of(RECORDS))
