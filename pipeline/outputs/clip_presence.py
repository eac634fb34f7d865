"""From records to whether their clips are there, as far as that is soon seen.

By listing folders of clips: names and sizes, no bytes. Of huge outputs some of the 256, and some parts of
records, others each time.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.layout import CLIPS, RECORDS
from framefleet.pipeline.outputs.media.clip_names import recorded_path
from framefleet.pipeline.outputs.parts.parts import read_parts
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, LATER_FIELDS, fields_named
from framefleet.pipeline.outputs.stores.store import Store

# Looked at: 256 requests of a store that lists a thousand files in some 50 ms, and 20 MB of memory.
_MAX_CLIPS = 100_000
_ALL = 256  # folders: two hexadecimal digits
_AT_ONCE = 4096  # records, before folders are left out
_MAX_PARTS = 64  # of eight million records, if they are large
_NUM_LISTINGS = 16  # at once
GLANCED = fields_named(FIRST_FIELDS, "row_id", "uri", "bytes")
GLANCED_MAYBE = fields_named(LATER_FIELDS, "path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Clips with a record that are not there, or of another size, of num_seen that were looked for."""

    num_gone: int
    example: str
    num_seen: int
    num_records: int


def look_for_clips(store: Store, parts: Sequence[str], *, num_records: int) -> Gone | None:
    """Return how many clips are not as these parts say; None where all are, as far as that is soon seen."""
    glance, draw = Glance(), random.SystemRandom()
    chosen = range(len(parts)) if len(parts) <= _MAX_PARTS else draw.sample(range(len(parts)), _MAX_PARTS)
    for table in read_parts(store, [parts[place] for place in sorted(chosen)], GLANCED, GLANCED_MAYBE):
        glance.note(table)
    found = glance.look(store)
    return found and replace(found, num_records=num_records)


class Glance:
    """First takes what all records say, then looks."""

    def __init__(self) -> None:
        self._folders = [f"{number:02x}" for number in range(_ALL)]
        random.SystemRandom().shuffle(self._folders)
        self._sizes: dict[str, dict[str, int]] = {folder: {} for folder in self._folders}
        self._num_records = 0

    def note(self, records: pa.Table) -> None:
        """Take the columns GLANCED, and GLANCED_MAYBE if they are there; of a row the last that is given."""
        for some in records.to_batches(max_chunksize=_AT_ONCE):
            self._num_records += len(some)
            for record in (some if len(self._folders) == _ALL else self._in_folders(some)).to_pylist():
                self._note(record)
            while self._num_seen > _MAX_CLIPS and len(self._folders) > 1:
                for folder in self._folders[: len(self._folders) // 2]:
                    del self._sizes[folder]
                self._folders = list(self._sizes)

    def _in_folders(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Return those that are looked for. Imports pandas, as `pa.array` does."""
        folders = pc.utf8_slice_codeunits(records["row_id"], 0, 2)
        return records.filter(pc.is_in(folders, pa.array(self._folders)))

    def look(self, store: Store) -> Gone | None:
        """Return how many clips are not as noted; None where all are."""
        with ThreadPoolExecutor(_NUM_LISTINGS) as listings:
            found = listings.map(partial(self._gone, store), self._folders)
            gone = [path for paths in found for path in paths]
        if not gone:
            return None
        return Gone(
            num_gone=len(gone), example=gone[0], num_seen=self._num_seen, num_records=self._num_records
        )

    @property
    def _num_seen(self) -> int:
        return sum(map(len, self._sizes.values()))

    def _note(self, record: Mapping[str, Any]) -> None:
        try:
            path = recorded_path(record, RECORDS)
        except JobError:  # a record that we did not write: nothing lies there that it means
            path = record["uri"]
        self._sizes[record["row_id"][:2]][path] = record["bytes"]

    def _gone(self, store: Store, folder: str) -> list[str]:
        """Return the clips of a folder that are not there as they were noted."""
        noted = self._sizes[folder]
        there = store.details(f"{CLIPS}/{folder}") if noted else {}
        return [path for path, size in noted.items() if path not in there or there[path].size != size]
