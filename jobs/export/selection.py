"""In: an output and what is chosen of it. Out: its records, some at a time, cut into shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.jobs.export.choice import ExportChoice
from framefleet.jobs.render.drafts_beside import no_records
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.spelling import did_you_mean
from framefleet.pipeline.outputs.parts.part_names import Part
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of
from framefleet.pipeline.outputs.parts.records import RECORDS
from framefleet.pipeline.outputs.recorded_files import MAX_CLIP_BYTES
from framefleet.pipeline.outputs.stores.json_file import not_ours
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.outputs.where import check_where, records_where

CLIP_COLUMNS = ("row_id", "uri", "path", "bytes", "media_sha256")  # say where a clip is, and which one
_PIECE_ROWS, _PIECE_BYTES = 256, 64 << 20  # read at once, and a row group: memory has a few of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some rows of a shard, in their order."""

    shard: int
    rows: pa.Table

    def digest(self, digest: hashlib._Hash) -> None:
        """Add which clips these are."""
        for row_id, sha256 in zip(
            self.rows["row_id"].to_pylist(), self.rows["media_sha256"].to_pylist(), strict=True
        ):
            digest.update(f"{row_id} {sha256}\n".encode())


class Selection:
    """The records of an output that are chosen, in the order in which they were committed.

    parts: those that were there when the export began; the output may grow.
    """

    def __init__(self, store: Store, choice: ExportChoice, parts: Sequence[Part]) -> None:
        """Raises JobError for columns and conditions that its records do not have, and where it has none."""
        self._store, self._choice, self._parts = store, choice, parts
        known = record_schema_of(store, parts)
        if not store.list(RECORDS):
            raise no_records(store)
        if choice.where is not None:
            check_where(known, choice.where)
        names = choice.columns if choice.columns is not None else tuple(known.names)
        for name in names:
            if name not in known.names:
                raise JobError(f"columns: there is no {name!r}", did_you_mean(name, known.names))
        self.columns = tuple(dict.fromkeys(("row_id", *names)))
        self.schema = pa.schema([known.field(name) for name in self.columns])
        self.captions = tuple(name for name in ("prompt", "arguments") if name in known.names)

    def pieces(self, columns: Sequence[str] = ()) -> Iterator[Piece]:
        """Yield the chosen records: these columns, and those of `CLIP_COLUMNS`."""
        names = dict.fromkeys((*columns, *CLIP_COLUMNS))
        tables = records_where(self._store, names, self._choice.where, self._parts)
        return self._cut(self._picked(table).select(list(names)) for table in tables)

    def _picked(self, table: pa.Table) -> pa.Table:
        if self._choice.picks is None:
            return table
        return table.filter(pc.is_in(table["row_id"], pa.array(self._choice.picks, pa.string())))

    def _cut(self, tables: Iterator[pa.Table]) -> Iterator[Piece]:
        """Yield pieces that end where a shard does: by rows and bytes alone, so always the same ones."""
        shard = num_rows = num_bytes = 0
        for table in tables:
            start = in_piece = 0
            sizes = table["bytes"].to_pylist()
            for end, size in enumerate(sizes):
                self._check_size(table, end, size)
                is_full = num_rows == self._choice.shard_rows or (
                    num_rows and num_bytes + size > self._choice.shard_mb * 1_000_000
                )
                if end > start and (is_full or end - start == _PIECE_ROWS or in_piece + size > _PIECE_BYTES):
                    yield Piece(shard=shard, rows=table.slice(start, end - start))
                    start, in_piece = end, 0
                if is_full:
                    shard, num_rows, num_bytes = shard + 1, 0, 0
                num_rows, num_bytes, in_piece = num_rows + 1, num_bytes + size, in_piece + size
            if start < len(sizes):
                yield Piece(shard=shard, rows=table.slice(start))

    def _check_size(self, table: pa.Table, place: int, size: int) -> None:
        if not 0 <= size <= MAX_CLIP_BYTES:
            row_id = table["row_id"][place].as_py()
            raise not_ours(
                self._store.url_of(RECORDS),
                f"the clip of {row_id} has {size:,} bytes",
                f"clips of up to {MAX_CLIP_BYTES:,} bytes are handed on; leave it out by where",
            )
