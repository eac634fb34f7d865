"""From an output to what of its records and clips is not as it was committed, found by reading every byte.

Changes nothing; memory stays flat. Records may be anybody's: no path outside of clips/ and extras/ is opened.
Previews are derived, and so never damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Literal

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.clip_index import ClipIndex, IndexedRecord
from framefleet.pipeline.outputs.layout import CLIPS, DRAFTS, EXTRAS, PREVIEWS, RECORDS
from framefleet.pipeline.outputs.parts.merged_parts import PartReader
from framefleet.pipeline.outputs.parts.part_names import part_of
from framefleet.pipeline.outputs.parts.parts import rows_in_table
from framefleet.pipeline.outputs.parts.pending_clips import announced_rows
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, LATER_FIELDS, fields_named
from framefleet.pipeline.outputs.parts.seals import gone_parts, live_parts
from framefleet.pipeline.outputs.record_files import (
    FileState,
    Unsound,
    file_state,
    recorded_clip,
    recorded_extras,
    row_named_by,
)
from framefleet.pipeline.outputs.stores.store import Store

_FOLDERS = [*(f"{kind}/{number:02x}" for number in range(256) for kind in (CLIPS, PREVIEWS)), EXTRAS]
_NUM_READERS = 16  # a store answers in tens of milliseconds, and hashing gives way to other threads
_AHEAD = 64  # listings that may wait to be taken
_FIELDS = fields_named(FIRST_FIELDS, "row_id", "uri", "bytes", "media_sha256")
_MAYBE = fields_named(LATER_FIELDS, "path", "extra_outputs_sha256", "extra_outputs_path")

DamageKind = Literal[Unsound, "doubled", "part", "job", "late", "stray", "uncommitted", "foreign"]
_LEFTOVERS = ("late", "stray", "uncommitted", "foreign")


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One thing that is not as it was committed.

    missing, size, bytes, unreadable: a file that the record of `row_id` names is gone, has another size or
    other bytes, or cannot be read, as on a bad disk.
    doubled: the part at `path` names a row that a later record names too. part: it is not as it was written.
    job: job.json is not. late: a part that does not count, as it came when its driver had lost the output, or
    its rows are in a larger one. stray: no record names
    the file; uncommitted: none yet, as its driver died. foreign: framefleet wrote no such file.
    """

    kind: DamageKind
    path: str
    row_id: str | None = None
    reason: str = ""

    @property
    def is_leftover(self) -> bool:
        """Whether no record is wrong for it, so that readers never meet it."""
        return self.kind in _LEFTOVERS


def damaged_records(store: Store, index: ClipIndex, checked: Callable[[int], None]) -> Iterator[Damage]:
    """Read every part and every file that its records name; yield what is wrong, and fill `index`.

    checked: is called with how many records were looked at, now and then.
    """
    num_checked, paths = 0, [part.path for part in live_parts(store)]
    parts = PartReader(store, paths)
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        for path in paths:
            try:
                for rows in rows_in_table(parts.table(path, _FIELDS, _MAYBE), store.url_of(path)):
                    looked = list(readers.map(partial(look_at, store), rows))
                    index.add(path, (record for record, _ in looked))
                    yield from (damage for _, damages in looked for damage in damages)
                    num_checked += len(rows)
                    checked(num_checked)
            except JobError as error:
                index.forget(path)
                yield Damage(kind="part", path=path, reason=error.problem)
    for path, row_id in index.doubled():
        yield Damage(kind="doubled", path=path, row_id=row_id)


def look_at(store: Store, record: Mapping[str, Any]) -> tuple[IndexedRecord, list[Damage]]:
    """Read the files of one record. Raises JobError where it names what no record of ours does."""
    clip, extras = recorded_clip(record), recorded_extras(record)
    states: dict[str, FileState] = {file.path: file_state(store, file) for file in (clip, extras) if file}
    damages = [
        Damage(kind=state, path=path, row_id=record["row_id"])
        for path, state in states.items()
        if state != "sound"
    ]
    extras_path = extras.path if extras else None
    indexed = IndexedRecord(row_id=record["row_id"], clip=clip.path, extras=extras_path, is_sound=not damages)
    return indexed, damages


def damage_of_drafts(damage: Damage) -> Damage:
    """Return damage among drafts, named as the file of the output that they lie in."""
    return replace(damage, path=f"{DRAFTS}/{damage.path}")


def beside_parts(store: Store) -> Iterator[Damage]:
    """Yield what lies in records/ and is not read, and parts that are gone."""
    live = {part.path for part in live_parts(store)}
    for path in store.list(RECORDS):
        if path not in live:
            yield Damage(kind="late" if part_of(path) else "foreign", path=path)
    for path in gone_parts(store):
        yield Damage(
            kind="part", path=path, reason="it was there when the last driver began or ended, and is gone"
        )


def strays(store: Store, index: ClipIndex) -> Iterator[Damage]:
    """Yield the files in clips/, previews/ and extras/ that no record of `index` names."""
    uncommitted = announced_rows(store)
    for path in _listed(store):
        row_id = row_named_by(path)
        if row_id is None:
            yield Damage(kind="foreign", path=path)
        elif not index.names(path, row_id):
            yield Damage(kind="uncommitted" if row_id in uncommitted else "stray", path=path, row_id=row_id)


def _listed(store: Store) -> Iterator[str]:
    """Yield the files of all folders of clips, some listed at once, and those next to them."""
    folders = iter(_FOLDERS)
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        while some := list(islice(folders, _AHEAD)):
            for paths in readers.map(store.list, some):
                yield from paths
