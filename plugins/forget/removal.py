"""Remove rows from the files of an output. Each step can be repeated after a kill."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from framefleet.api.errors import not_ours
from framefleet.api.outputs import (
    DriverLock,
    HeldOutput,
    OutputFiles,
    Part,
    Store,
    read_json,
    rows_where,
)
from framefleet.api.texts import canonical_json, parse_json, parse_object
from framefleet.pipeline.outputs import layout
from framefleet.pipeline.plugin import files_of_plugins
from framefleet.plugins.forget.texts import RowTexts, is_text
from framefleet.plugins.picks import PICK_FILES, PICKS

# Deleted as a whole, even if only some rows are quoted, since they are computed again or only for people.
_DERIVED = ("damaged", "embeddings")
_ANSWERS, _ANSWERED = (
    "answers",
    "original_prompt",
)  # of a part of answers: what was rewritten, perhaps more than once
_PARTS = (layout.SCORES, layout.LOGS, layout.ROWS, layout.FAILURES, layout.RECORDS)  # records go last
_FILES = (layout.CLIPS, layout.DERIVED, layout.PREVIEWS)
_JSON = TypeAdapter(dict[str, Any])
_PLACE = "framefleet_place"  # column with a row's place in its table, while a condition is evaluated


def table_folders() -> list[str]:
    return [layout.TABLES, *(path for path, kind in files_of_plugins().items() if kind == "rows")]


def tables_in(store: Store) -> list[str]:
    return [path for folder in table_folders() for path in store.list(folder)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Finds rows in tables, by their texts and by a condition."""

    texts: RowTexts
    where: str | None  # None: no condition, or one that is not only about texts
    columns: frozenset[str]  # in the condition

    def check(self, files: OutputFiles) -> None:
        """Read what a removal reads. Raises JobError if one of its steps would."""
        for path in tables_in(files.store):
            for _ in self.others_in(files.store, path) if path.endswith(".parquet") else ():
                pass
        for part in files.parts(layout.INVALID, _ANSWERS):
            self.are_others(files.table(part))
        for _ in files.row_ids(files.parts(*_PARTS)):
            pass

    def others_in(self, store: Store, path: str) -> Iterator[tuple[pa.Table, pa.Array]]:
        """Yield a table in pieces, each with which of its rows stay."""
        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            file = Path(folder, "table.parquet")
            store.download(path, file)
            try:
                with pq.ParquetFile(file) as table:
                    for batch in table.iter_batches():
                        rows = pa.Table.from_batches([batch])
                        yield rows, self.are_others(rows)
            except (pa.ArrowInvalid, OSError) as error:
                raise not_ours(store.url_of(path), str(error)) from error

    def are_others(self, table: pa.Table) -> pa.Array:
        """Return which rows of a table stay, by their texts and the condition."""
        texts = table.select([one.name for one in table.schema if is_text(one.type)])
        others = [not self.texts.are_of(row) for row in texts.to_pylist()]
        for place in self._chosen(texts):
            others[place] = False
        return pa.array(others, pa.bool_())

    def _chosen(self, texts: pa.Table) -> list[int]:
        """Return the places where the condition is true, if it is only about texts, and none is null.

        Not for numbers, since the table may lack them, or the job may change them.
        """
        if self.where is None or not self.columns <= {*texts.column_names}:
            return []
        placed = texts.append_column(_PLACE, pa.array(range(len(texts)), pa.int64()))
        complete = placed.select([*self.columns, _PLACE]).drop_null()
        (chosen,) = rows_where(iter([complete]), self.where)
        return chosen[_PLACE].to_pylist()


@dataclass(slots=True)
class Removal:
    """Removes rows from one output."""

    held: HeldOutput
    lock: DriverLock  # of the output
    search: Search
    num_deleted: int = 0
    num_rewritten: int = 0
    pages: set[str] = field(default_factory=set)  # deleted whole, with what they show of other rows

    @property
    def store(self) -> Store:
        return self.held.store

    @property
    def texts(self) -> RowTexts:
        return self.search.texts

    def remember(self) -> None:
        """Store the row_ids, and make the next run read its whole table again."""
        self._delete(path for path in self.store.list(layout.ROWS) if not path.endswith(".parquet"))
        row_ids = sorted(self.held.forgotten() | self.texts.row_ids)
        self.store.write(layout.FORGOTTEN, canonical_json(row_ids).encode())

    # -- What quotes them --

    def empty_tables(self) -> None:
        """Remove the rows from tables in the output, and from answers about their prompts."""
        for path in tables_in(self.store):
            if path.endswith(".parquet"):
                self._empty_table(path)
            elif path.endswith(".jsonl"):  # as `framefleet batch` writes it
                self._empty_lines(path)
            elif PurePosixPath(path).name in self.texts.own_files:
                self._delete([path])
        for part in self.held.parts(layout.INVALID):
            table = self.held.table(part)
            self._keep(part, table, self.search.are_others(table))
        originals = pa.array(self.texts.rows_by_text, pa.string())
        for part in self.held.parts(_ANSWERS):
            table = self.held.table(part)
            is_theirs = pc.or_(
                pc.is_in(table[_ANSWERED], originals), pc.invert(self.search.are_others(table))
            )
            if pc.any(is_theirs).as_py():  # the key stays, so that it is not asked again
                for name in (_ANSWERED, "prompt"):
                    texts = pc.if_else(is_theirs, "", table[name])
                    table = table.set_column(table.column_names.index(name), table.schema.field(name), texts)
                self._replace(part, table)

    def _empty_job(self) -> None:
        """Remove the texts from lists in job.json, e.g. of a sweep, and from its copies in records' parts."""
        if not self.store.exists(layout.CLAIM):
            return
        job = read_json(self.store, layout.CLAIM, _JSON)
        if self._without_texts(job) == job:
            return
        for part in self.held.parts(layout.RECORDS):
            if text := self.held.job_of(part):
                self._replace(part, self.held.table(part), job=self._job_text(parse_json(text)))
        self.store.write(layout.CLAIM, self._job_text(job).encode())
        self.num_rewritten += 1

    def delete_quotes(self) -> None:
        """Delete pages, picks, errors of earlier runs, and quotes in job.json."""
        self._empty_job()
        derived = (*_DERIVED, *(path for path, kind in files_of_plugins().items() if kind == "derived"))
        self.pages.update(path for path in derived if self.store.list(path) or self.store.exists(path))
        self._delete(path for folder in derived for path in self.store.list(folder))
        self._delete(path for path in derived if self.store.exists(path))
        for path in (*self.store.list(PICK_FILES), PICKS):
            if self.store.exists(path):
                self._empty_lines(path)
        self.num_rewritten += self.lock.forget_errors()

    # -- What names them --

    def delete_rows(self) -> None:
        """Delete the rows in parts: scores, logs, rows/, failures, and finally records."""
        wanted = pa.array(self.texts.row_ids, pa.string())
        for folder in _PARTS:
            parts = self.held.parts(folder)
            for part, row_ids in zip(parts, self.held.row_ids(parts), strict=True):
                others = pc.invert(pc.is_in(row_ids, wanted))
                if not pc.all(others).as_py():
                    self._keep(part, self.held.table(part), others)
        self.lock.seal()  # parts without other rows are gone, but this is not damage

    def delete_files(self) -> None:
        """Delete the files named by their row_ids."""
        starts = {row_id[:2] for row_id in self.texts.row_ids}
        folders = [f"{folder}/{start}" for folder in _FILES for start in sorted(starts)]
        for folder in (*folders, layout.EXTRAS, layout.CHECKPOINTS, layout.PENDING):
            paths = self.store.list(folder)
            self._delete(path for path in paths if PurePosixPath(path).name[:32] in self.texts.row_ids)
        self.store.sweep()

    # -- How --

    def _delete(self, paths: Iterable[str]) -> None:
        if files := [*paths]:
            self.held.delete(files)
            self.num_deleted += len(files)

    def _keep(self, part: Part, table: pa.Table, others: pa.ChunkedArray) -> None:
        """Write a part again with these rows only, or delete it if there are none."""
        rest = table.filter(others)
        if len(rest) == len(table):
            return
        if len(rest):
            self._replace(part, rest)
        else:
            self._delete([part.path])

    def _replace(self, part: Part, table: pa.Table, *, job: str | None = None) -> None:
        self.held.rewrite(part, table, job=job)
        self.num_rewritten += 1

    def _empty_lines(self, path: str) -> None:
        """Write JSON lines again without the rows."""
        lines = self.store.read(path).splitlines(keepends=True)
        rest = [line for line in lines if not self.texts.are_of(parse_object(line))]
        if len(rest) < len(lines):
            self.lock.check()
            self.store.write(path, b"".join(rest))
            self.num_rewritten += 1

    def _empty_table(self, path: str) -> None:
        """Write a table again without the rows. A table that a job names stays, even if it is empty."""
        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            new, num_rows, num_kept = Path(folder, "new.parquet"), 0, 0
            with ExitStack() as exits:
                writer: pq.ParquetWriter | None = None
                for rows, others in self.search.others_in(self.store, path):
                    writer = writer or exits.enter_context(pq.ParquetWriter(new, rows.schema))
                    rest = rows.filter(others)
                    num_rows, num_kept = num_rows + len(rows), num_kept + len(rest)
                    writer.write_table(rest)
            if num_kept == num_rows:
                return
            self.lock.check()
            is_own = path.startswith(f"{layout.TABLES}/") and f"/{layout.ADDED}" not in path
            if num_kept or is_own:
                self.store.upload(path, new)
                self.num_rewritten += 1
            else:
                self._delete([path])

    def _job_text(self, job: Any) -> str:
        return json.dumps(self._without_texts(job), indent=2, ensure_ascii=False) + "\n"

    def _without_texts(self, value: Any) -> Any:
        """Return a JSON value without these texts in its lists."""
        if isinstance(value, dict):
            return {name: self._without_texts(inner) for name, inner in value.items()}
        if not isinstance(value, list):
            return value
        texts = self.texts.rows_by_text
        return [self._without_texts(one) for one in value if not (isinstance(one, str) and one in texts)]
