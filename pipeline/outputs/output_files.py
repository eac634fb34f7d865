"""The files of an output: its parts one by one, and which rows they name. For commands that change them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.pipeline.errors import JobError, StoreError
from framefleet.pipeline.outputs import row_states
from framefleet.pipeline.outputs.layout import FAILURES, INVALID, LOGS, RECORDS, ROWS, SCORES, TABLES
from framefleet.pipeline.outputs.parts import parts as of_parts, seals
from framefleet.pipeline.outputs.parts.part_file import columns_of, is_unreadable, read_part
from framefleet.pipeline.outputs.parts.parts import read_parts
from framefleet.pipeline.outputs.parts.pending_clips import intents_in
from framefleet.pipeline.outputs.parts.record_tables import which_count
from framefleet.pipeline.outputs.parts.records import (
    FAILURE_FIELDS,
    RECORD_FIELDS,
    ROW_FIELDS,
    fields_named,
)
from framefleet.pipeline.outputs.parts.seals import Part as Part, live_parts, parts_in
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.plugin import files_of_plugins

# Folders of parts besides records/, with what readers need of them; None: all columns as they are.
_OTHER_PARTS: Mapping[str, pa.Schema | None] = {
    FAILURES: FAILURE_FIELDS,
    INVALID: None,
    LOGS: row_states.LOG_FIELDS,
    ROWS: ROW_FIELDS,
    SCORES: fields_named(RECORD_FIELDS, "row_id"),
}


@dataclass(slots=True)
class OutputFiles:
    """The files of an output, as `Output` reads them."""

    store: Store

    def parts(self, *folders: str) -> list[Part]:
        """Return the parts of folders, the oldest first; of records/ those that count."""
        return [
            part
            for folder in folders
            for part in (live_parts(self.store) if folder == RECORDS else parts_in(self.store, folder))
        ]

    def read(self, parts: Iterable[Part]) -> Iterator[pa.Table]:
        """Yield the content of parts as it was written."""
        return read_parts(self.store, [part.path for part in parts], None)

    def which_count(self, parts: Sequence[Part]) -> Iterator[pa.Array]:
        """Yield for each part which of its records is, in all of these parts, the last of its row."""
        return map(pa.array, which_count(self.store, [part.path for part in parts]))

    def table(self, part: Part) -> pa.Table:
        """Return the content of a part, with plain texts."""
        return next(read_parts(self.store, [part.path], self.schema(part)))

    def rows(self, part: Part, fields: pa.Schema) -> Iterator[list[dict[str, Any]]]:
        """Yield these columns of a part as dicts, some rows at a time."""
        return of_parts.rows_in_table(read_part(self.store, part.path, fields), self.store.url_of(part.path))

    def unread(self) -> Iterator[tuple[str, Literal["foreign", "late", "merged"]]]:
        """Yield the files in records/ that do not count: other files, late parts, merged parts."""
        seal, live = seals.newest_seal(self.store), {part.path for part in live_parts(self.store)}
        for path in self.store.list(RECORDS):
            if path not in live:
                part = seals.part_of(path)
                yield path, "foreign" if part is None else "late" if seal.is_late(part) else "merged"

    def unreadable(self) -> Iterator[tuple[str, str]]:
        """Yield the parts outside of records/, and the tables of rows, that cannot be read, and why."""
        of_plugins = files_of_plugins()
        kept = dict.fromkeys(path for path, kind in of_plugins.items() if kind == "kept")
        for folder, fields in {**_OTHER_PARTS, **kept}.items():
            for path in filter(seals.part_of, self.store.list(folder)):
                try:
                    read_part(self.store, path, fields)
                except JobError as error:
                    if self.store.exists(path):  # else a job has replaced it
                        yield path, error.problem
        for folder in (TABLES, *(path for path, kind in of_plugins.items() if kind == "rows")):
            for path in filter(seals.part_of, self.store.list(folder)):
                if reason := self._why_unreadable(path):
                    yield path, reason

    def _why_unreadable(self, path: str) -> str:
        """Return why a table of any size cannot be read; "" if it can."""
        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            file = Path(folder, "table.parquet")
            try:
                self.store.download(path, file)
            except StoreError as error:
                if not is_unreadable(self.store, error):
                    raise
                return error.problem if self.store.exists(path) else ""  # else a job has replaced it
            try:
                with pq.ParquetFile(file) as table:
                    for _ in table.iter_batches():
                        pass
            except (pa.ArrowInvalid, OSError) as error:
                return f"{self.store.url_of(path)} is not a table: {error}"
        return ""

    def gone(self) -> list[str]:
        """Return the parts of records that counted and are not there any more."""
        return seals.gone_parts(self.store)

    def schema(self, part: Part) -> pa.Schema:
        return columns_of(self.store, part.path)[0]

    def row_ids(self, parts: Iterable[Part]) -> Iterator[pa.ChunkedArray]:
        """Yield the row_ids of each part."""
        return (table["row_id"] for table in row_states.row_ids_in(self.store, parts))

    def whole_row_id(self, row_id: str) -> str:
        """Return the row_id with these first digits, or of a clip's name, in records, failures and rows/.

        "" if there is none; a whole row_id is not looked up. Raises JobError for too few digits.
        """
        return of_parts.whole_row_id(self.store, row_id, self.parts(RECORDS, FAILURES, ROWS))

    def no_record(self, row_id: str) -> JobError:
        """Return the error for a row that nothing here names."""
        return of_parts.no_record(self.store, row_id)

    def forgotten(self) -> frozenset[str]:
        """Return the rows that were taken out for good: they are not rendered again."""
        return row_states.forgotten_rows(self.store)

    def added(self) -> list[str]:
        """Return the files of rows that were added to the job's table, the oldest first."""
        return row_states.added_in(self.store)

    def uncommitted(self) -> set[str]:
        """Return the rows of an interrupted run whose clips may be there without a record."""
        return {intent.row_id for intent in intents_in(self.store) if not intent.is_disowned}

    def job(self) -> str | None:
        """Return job.json from the newest part that repeats it. Raises JobError if none can be read."""
        return of_parts.job_in_parts(self.store)
