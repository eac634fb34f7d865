"""From the records of an output to the clips that are gone, judging by names and sizes only.

In huge outputs, only some folders and some parts of records are looked at, different ones each time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs import layout
from framefleet.pipeline.outputs.parts.parts import read_parts
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, fields_named
from framefleet.pipeline.outputs.stores.store import Store

# Looked at: 256 requests of a store that lists a thousand files in some 50 ms, and 20 MB of memory.
_MAX_CLIPS = 100_000
_NUM_FOLDERS = 256  # two hexadecimal digits
_AT_ONCE = 4096  # records, before folders are left out
_MAX_PARTS = 64  # of eight million records, if they are large
_NUM_LISTINGS = 16  # at once
_CLIP_FIELDS = fields_named(RECORD_FIELDS, "row_id", "uri", "path", "bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Clips with a record that are gone, or of another size."""

    num_gone: int
    example: str
    num_seen: int  # clips that were looked for
    num_records: int


def look_for_clips(store: Store, parts: Sequence[str], *, num_records: int) -> Gone | None:
    """Return how many clips are not as these parts say; None if all that were looked for are."""
    draw = random.SystemRandom()
    if len(parts) > _MAX_PARTS:
        parts = [parts[place] for place in sorted(draw.sample(range(len(parts)), _MAX_PARTS))]
    folders = [f"{number:02x}" for number in range(_NUM_FOLDERS)]
    draw.shuffle(folders)
    sizes: dict[str, dict[str, int]] = {folder: {} for folder in folders}  # of clips, by folder and path
    for table in read_parts(store, parts, _CLIP_FIELDS):
        for batch in table.to_batches(max_chunksize=_AT_ONCE):
            if len(sizes) < _NUM_FOLDERS:  # not before: `pa.array` imports pandas
                prefixes = pc.utf8_slice_codeunits(batch["row_id"], 0, 2)
                batch = batch.filter(pc.is_in(prefixes, pa.array([*sizes])))
            for record in batch.to_pylist():
                try:
                    path = layout.recorded_path(record, layout.RECORDS)
                except JobError:  # a record that we did not write: its clip is not in the output
                    path = record["uri"]
                sizes[record["row_id"][:2]][path] = record["bytes"]
            while sum(map(len, sizes.values())) > _MAX_CLIPS and len(sizes) > 1:
                for folder in [*sizes][: len(sizes) // 2]:
                    del sizes[folder]

    def gone_from(folder: str) -> list[str]:
        there = store.details(f"{layout.CLIPS}/{folder}") if sizes[folder] else {}
        return [path for path, size in sizes[folder].items() if path not in there or there[path].size != size]

    with ThreadPoolExecutor(_NUM_LISTINGS) as listings:
        gone = [path for paths in listings.map(gone_from, sizes) for path in paths]
    num_seen = sum(map(len, sizes.values()))
    if not gone:
        return None
    return Gone(num_gone=len(gone), example=gone[0], num_seen=num_seen, num_records=num_records)
