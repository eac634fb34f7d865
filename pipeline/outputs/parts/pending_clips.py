"""Clips about to be stored, `pending/<row_id>-<tag>.json`: their records, written before they are uploaded.

The driver deletes these notes once the record is committed. They lead to what a dead driver or worker left: a
clip of a row without a record is adopted, and not rendered again; files that are not in the record of their
row are swept. Only `repair` looks for anything else among a million clips.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.outputs import layout
from framefleet.pipeline.outputs.columns import CellValue
from framefleet.pipeline.outputs.parts import records
from framefleet.pipeline.outputs.parts.part_file import read_part
from framefleet.pipeline.outputs.parts.seals import Hold, live_parts
from framefleet.pipeline.outputs.stores.store import Store

_NAME = re.compile(rf"{layout.PENDING}/(?P<row_id>[0-9a-f]{{32}})-(?P<tag>[0-9a-f]{{8}})\.json", re.ASCII)
_TAG = re.compile(rf"-([0-9a-f]{{{layout.TAG}}})\.")  # of a clip's or a preview's name
_MAX_BYTES = 1 << 20  # of one: a record, whose arguments are a few prompts
_NUM_READERS = 4  # clips in memory at once
_PLACES = records.fields_named(records.RECORD_FIELDS, "row_id", "path", "extra_outputs_path", "derived_path")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Intent:
    """A note that a clip was about to be stored."""

    path: str  # of its file
    row_id: str
    tag: str
    is_disowned: bool  # it is empty, and its clip should be swept


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedClip:
    """What an intent says about a clip."""

    record: records.Record
    was_batched: bool  # other rows were under way with it
    values: Mapping[str, CellValue] = field(default_factory=dict)  # of plugins' columns


_FINISHED = TypeAdapter(FinishedClip)


def intent_path(row_id: str, media_sha256: str, *others: str | None) -> str:
    """Return the path of the intent of such a clip. others: digests, as `tags` takes them."""
    return f"{layout.PENDING}/{row_id}-{layout.tags(media_sha256, *others)[1]}.json"


def path_of_intent(record: records.Record) -> str:
    return intent_path(record.row_id, record.media_sha256, record.extra_outputs_sha256, record.derived_sha256)


def announce(
    store: Store, record: records.Record, *, was_batched: bool, values: Mapping[str, CellValue] | None = None
) -> None:
    """Write down that this clip is about to be stored. values: of plugins' columns."""
    finished = FinishedClip(record=record, was_batched=was_batched, values=values or {})
    store.write(path_of_intent(record), _FINISHED.dump_json(finished))


def disown(store: Store, paths: Iterable[str]) -> None:
    """Let clips whose records are taken back be swept later. paths: of their intents, which are emptied."""
    with ThreadPoolExecutor(_NUM_READERS) as writers:
        list(writers.map(lambda path: store.write(path, b""), paths))


def intent_to_sweep(path: str, row_id: str) -> str:
    """Return the path of an intent that lets a row's file be swept once the row's record names another."""
    tag = _TAG.search(path)
    return f"{layout.PENDING}/{row_id}-{tag[1] if tag else '0' * layout.TAG}.json"


def intents_in(store: Store) -> list[Intent]:
    """Return all intents that were neither committed nor swept."""
    names = ((_NAME.fullmatch(path), stored.size) for path, stored in store.details(layout.PENDING).items())
    return [Intent(name[0], name["row_id"], name["tag"], not size) for name, size in names if name]


def finished_clips(store: Store, intents: Iterable[Intent], suffix: str) -> Iterator[FinishedClip]:
    """Yield the clips that are complete, by reading their bytes. suffix: of the job's clips."""
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        yield from filter(None, readers.map(partial(_finished, store, suffix=suffix), intents))


def _finished(store: Store, intent: Intent, *, suffix: str) -> FinishedClip | None:
    """Return what an intent says, with the paths of its files; None if it cannot be adopted."""
    try:
        clip = _FINISHED.validate_json(store.read(intent.path, _MAX_BYTES), strict=True)
        # Refuses what no column can hold.
        (row,) = pa.Table.from_pylist([records.values_of(clip.record)], records.RECORD_FIELDS).to_pylist()
        record = records.record_of(row, layout.PENDING)
        row_id, extras_sha256 = record.row_id, record.extra_outputs_sha256
        if path_of_intent(record) != intent.path:
            return None
        attempts = layout.tags(record.media_sha256, extras_sha256, record.derived_sha256)
        clips = [layout.clip_path(row_id, suffix, tag) for tag in attempts]
        path = _first(store, clips, record.media_sha256, record.bytes)
        arrays = [layout.extras_path(row_id, tag) for tag in attempts]
        extras = extras_sha256 and _first(store, arrays, extras_sha256)
        seconds = [layout.derived_path(row_id, suffix, tag) for tag in attempts]
        second = record.derived_sha256
        derived = second and _first(store, seconds, second, record.derived_bytes)
        if path is None or (extras_sha256 and not extras) or (record.derived_sha256 and not derived):
            return None
        still = layout.preview_path(path)
        places: dict[str, Any] = {"extra_outputs_path": extras, "derived_path": derived}
        places |= {"preview_path": still if store.exists(still) else None}
        placed = replace(record, path=path, uri=store.url_of(path), **places)
    except (FileNotFoundError, ValueError, OverflowError, pa.ArrowException):
        return None  # deleted, or not as a worker wrote it
    except FramefleetError as error:  # it is rendered again, as if nothing had been there
        log.warning("%s: not adopted: %s", store.url_of(intent.path), error)
        return None
    return replace(clip, record=placed)


def _first(store: Store, paths: Iterable[str], sha256: str, size_bytes: int | None = None) -> str | None:
    for path in paths:
        try:
            if size_bytes not in (None, store.stat(path).size):
                continue
            content = store.read(path)
        except FileNotFoundError:
            continue
        if hashlib.sha256(content).hexdigest() == sha256:
            return path
    return None


def sweep(store: Store, intents: Iterable[Intent], hold: Hold) -> None:
    """Delete what other attempts left for rows that have a record by now, and the intents of these rows.

    Only for the driver with the lock. What belongs to rows without a record stays as it is.
    """
    intents_by_row: dict[str, list[Intent]] = {}
    for intent in intents:
        intents_by_row.setdefault(intent.row_id, []).append(intent)
    left = set(intents_by_row)
    strays: list[str] = []
    done: list[str] = []
    # Newest first, as most of these rows are new; of doubles, the last counts.
    for part in reversed(live_parts(store)) if left else ():
        table = read_part(store, part.path, _PLACES)
        for record in table.filter(pc.is_in(table["row_id"], pa.array(left, pa.string()))).to_pylist():
            left.discard(record["row_id"])
            intents_of_row = intents_by_row[record["row_id"]]
            attempts = {"", *(intent.tag for intent in intents_of_row)}
            strays += _strays(record, attempts, store.url_of(layout.RECORDS))
            done += [intent.path for intent in intents_of_row]
        if not left:
            break
    if done:
        hold.check()
        store.delete_many(strays)
        store.delete_many(done)  # last: they lead to the rest


def _strays(record: Mapping[str, Any], attempts: set[str], where: str) -> list[str]:
    """Return where files of a row may be that its record does not name. attempts: their tags."""
    row_id, clip = record["row_id"], layout.recorded_path(record, where)
    suffix = clip[clip.index(".") :]
    clips = [layout.clip_path(row_id, suffix, tag) for tag in attempts]
    paths = [*clips, *map(layout.preview_path, clips), *map(layout.label_path, clips)]
    paths += (layout.extras_path(row_id, tag) for tag in attempts)
    recorded = {clip, layout.preview_path(clip), layout.label_path(clip), record["extra_outputs_path"]}
    if derived := record["derived_path"]:  # all rows of an output have one, or none
        seconds = [layout.derived_path(row_id, suffix, tag) for tag in attempts]
        paths += [*seconds, *map(layout.label_path, seconds)]
        recorded |= {derived, layout.label_path(derived)}
    return [path for path in paths if path not in recorded]
