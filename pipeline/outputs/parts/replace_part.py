"""A part without some of its rows, in place of the one that was there; a kill in between loses nothing.

Rows are withdrawn so that they are rendered again. A part is replaced by one without them, and deleted when
that is stored and the lock is still ours. What goes is decided by each record alone: so whoever holds the
output next decides the same, and finishes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, groupby
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.layout import DAMAGED
from framefleet.pipeline.outputs.parts.part_file import JOB, REPLACES, metadata_of, read_part, to_parquet
from framefleet.pipeline.outputs.parts.parts import NUM_READERS, read_parts, rows_in_table
from framefleet.pipeline.outputs.parts.pending_clips import disown, intent_path
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, fields_named
from framefleet.pipeline.outputs.parts.seals import Hold, live_parts, new_run, part_path
from framefleet.pipeline.outputs.stores.store import Store

_MAX_BYTES = 1 << 30  # as of a part
_REASONS = ("recipe", "arguments", "environment", "model_name")
_FILES = ("row_id", "media_sha256", "extra_outputs_sha256", "derived_sha256")
_FIELDS = fields_named(RECORD_FIELDS, *_FILES, "bytes", *_REASONS)


def replace_part(
    store: Store, path: str, row_ids: Collection[str], *, run: str, number: int, hold: Hold
) -> None:
    """Write a part anew without these rows, and delete it; one without any other just goes.

    run, number: name the new one, which is newer, and so counts where both are there. Only the driver with
    the lock.
    """
    table = read_part(store, path, None)
    left = table.filter(pc.invert(pc.is_in(table["row_id"], pa.array(row_ids, pa.string()))))
    hold.check()
    if len(left):
        job = {name: text for name, text in metadata_of(store, path).items() if name == JOB}
        content = to_parquet(left, {**job, REPLACES: path})
        store.create(part_path(str(PurePosixPath(path).parent), run, number, content), content)
        hold.check()
    store.delete(path)


def finish_replacing(store: Store, hold: Hold, epochs: Collection[int]) -> None:
    """Delete the parts that drivers of these epochs had put others in place of, when they were killed.

    Until then their rows have two records, and those that were taken out of them count as done.
    """
    if not epochs:
        return
    live = live_parts(store)
    theirs = [part for part in live if part.epoch in epochs]
    of_runs = [[part.path for part in of_run] for _, of_run in groupby(theirs, lambda part: part.run)]
    with ThreadPoolExecutor(NUM_READERS) as readers:
        read = partial(_metadata_of, store)
        firsts = list(readers.map(read, [paths[0] for paths in of_runs]))
        # A run replaces parts, or adds rows; its first part says which, unless it is damaged.
        others = [
            paths[1:] for paths, first in zip(of_runs, firsts, strict=True) if REPLACES in first or not first
        ]
        metadata = [*firsts, *readers.map(read, chain.from_iterable(others))]
    replaced = {path for one in metadata for path in one.get(REPLACES, "").splitlines()}
    for part in live:
        if part.path in replaced:
            hold.check()
            store.delete(part.path)


def _metadata_of(store: Store, path: str) -> dict[str, str]:
    try:
        return metadata_of(store, path)
    except JobError:  # damaged, as readers report
        return {}


def set_aside(store: Store, path: str, hold: Hold) -> None:
    """Move a file into damaged/. Only the driver with the lock."""
    if store.exists(path) and store.stat(path).size > _MAX_BYTES:  # a link may lead to nothing
        raise JobError(
            f"{store.url_of(path)} has more than {_MAX_BYTES:,} bytes, and is not framefleet's",
            "move it out of the output",
        )
    hold.check()
    store.move(path, f"{DAMAGED}/{path}")


def withdraw(
    store: Store, goes: Callable[[Mapping[str, Any]], bool], hold: Hold
) -> Iterator[tuple[list[str], int]]:
    """Take out the records that `goes` names; yield of each part, once it is replaced, what went.

    goes: asked with recipe, arguments, environment, model_name and others. Yields row_ids, and bytes of
    clips, which are not adopted, but swept as soon as others are in their place. Memory does not grow with
    the records. Only the driver with the lock; to be read to the end.
    """
    parts, run = live_parts(store), new_run(hold.epoch)
    number = 0
    tables = read_parts(store, [part.path for part in parts], _FIELDS)
    for part, table in zip(parts, tables, strict=True):
        where = store.url_of(part.path)
        gone = [row for rows in rows_in_table(table, where) for row in rows if goes(row)]
        if gone:
            number += 1
            row_ids = [row["row_id"] for row in gone]
            out = {*row_ids}  # also other records of these rows, which go with them
            taken = (row for rows in rows_in_table(table, where) for row in rows if row["row_id"] in out)
            disown(store, [intent_path(*(row[name] for name in _FILES)) for row in taken])
            replace_part(store, part.path, row_ids, run=run, number=number, hold=hold)
            yield row_ids, sum(row["bytes"] for row in gone)
