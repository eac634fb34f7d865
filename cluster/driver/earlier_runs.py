"""What earlier runs left in an output: what they spent, clips without a record, records in doubt.

Such clips get records now, and are not rendered again. If an audit finds a kind of rows wrong, its records
are taken back, in all runs, unless a plain call made them. The kind is noted in `apart/<16 hex>.json`, so
that no later run adopts such clips.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow.compute as pc

from framefleet.cluster.driver.lock import DriverLock, last_reports
from framefleet.cluster.driver.stop import Spent
from framefleet.cluster.worker.messages import Rendering, StoredRow
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.metrics import WORKER_SECONDS
from framefleet.pipeline.outputs.columns import ColumnValues
from framefleet.pipeline.outputs.file_step import suffix_of
from framefleet.pipeline.outputs.layout import APART
from framefleet.pipeline.outputs.parts.parts import tables_by_part, withdraw
from framefleet.pipeline.outputs.parts.pending_clips import FinishedClip, Intent, finished_clips
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, fields_named, public_arguments
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.audit.schedule import ComputeTime
from framefleet.pipeline.render.audit.verdict import is_doubtful, kind_of, kind_of_record
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.tables.index import RowIndex


def spent_before(store: Store) -> Spent:
    """Return what all drivers of an output last reported as spent, and the bytes of its clips.

    A killed driver reported at most a beat before. Records cannot say it: the next run adopts clips, days
    later, and `repair` rewrites parts of many runs. Bytes are those of all records.
    """
    tables = tables_by_part(store, fields_named(FIRST_FIELDS, "bytes"))
    num_bytes = sum(pc.sum(records["bytes"]).as_py() or 0 for _, records in tables)
    reports = last_reports(store)
    times = ((report.elapsed_s, WORKER_SECONDS.total(report.figures)) for report in reports)
    sound = (Spent(elapsed_s=all_s, worker_s=own_s) for all_s, own_s in times if _are_sound(all_s, own_s))
    return sum(sound, Spent(num_bytes=num_bytes))


def model_time_before(store: Store) -> ComputeTime:
    """Return how long models computed in all runs, as their drivers last reported."""
    times = (ComputeTime.of(progress.figures) for progress in last_reports(store))
    return sum((time for time in times if _are_sound(time.rows_s, time.audits_s)), ComputeTime())


def _are_sound(*seconds: float) -> bool:
    return all(math.isfinite(number) and number >= 0 for number in seconds)


@dataclass(slots=True)
class Adoption:
    """Clips that an earlier run finished, by row_id."""

    finished: dict[str, FinishedClip] = field(default_factory=dict)
    apart: set[str] = field(default_factory=set)  # kinds: only clips of plain calls are adopted
    # The job's models by name, each with its name in records and its digest.
    models: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def take(self, row_id: str, request: Request) -> StoredRow | None:
        """Return a row's clip, once. Its settings come from the request, not from a note by anybody."""
        clip = self.finished.pop(row_id, None)
        if clip is None or (clip.was_batched and self.is_apart(kind_of(request))):
            return None
        name, digest = self.models[request.model]
        if clip.record.model_digest != digest:
            return None
        record = replace(
            clip.record,
            arguments=public_arguments(request.arguments),
            seed=request.seed,
            scheduler=request.scheduler,
            recipe=request.recipe,
            model=name,
            model_name=request.model or None,
        )
        added = ColumnValues(values=clip.values)
        return StoredRow(record=record, was_batched=clip.was_batched, added=added)

    def is_apart(self, kind: str) -> bool:
        """Return whether rows of this kind were found to differ from plain calls, in this run or before."""
        return bool(self.apart) and path_of(kind) in self.apart

    def refuse(self, kind: str) -> None:
        """From now on, adopt no clip of this kind that was batched."""
        self.apart.add(path_of(kind))


def find_adoptable(
    run: Rendering, intents: Iterable[Intent], models: Mapping[str, tuple[str, str]]
) -> Adoption:
    """Return the clips that are complete and made by the job's models. Reads their bytes.

    intents: of rows in the table that have no record. models: as in `Adoption`.
    """
    digests = {digest for _, digest in models.values()}
    finished = finished_clips(run.store, intents, suffix_of(run.media, run.steps.values()))
    # Columns about what is in a file. Values of other columns may come later, and are null.
    columns = {name for step in run.steps.values() if step.changes_file for name in step.columns.names}
    ours = (
        clip for clip in finished if clip.record.model_digest in digests and columns <= clip.values.keys()
    )
    apart = {*run.store.list(APART)}
    return Adoption({clip.record.row_id: clip for clip in ours}, apart, models)


@dataclass(slots=True, kw_only=True)
class TakenBack:
    num_rows: int = 0
    num_before: int = 0  # of num_rows, those that had a record before this run
    num_bytes: int = 0  # of all their clips
    num_elsewhere: int = 0  # doubtful rows that keep their records, as they are not in the table


def take_back(
    store: Store, index: RowIndex, apart: Set[str], lock: DriverLock, *, has_begun: bool
) -> TakenBack:
    """Take back the records of rows in the table that were neither plain calls nor compared.

    apart: paths of the kinds that were found wrong. has_begun: whether rendering has begun.
    """
    taken_back = TakenBack()

    def goes(record: Mapping[str, Any]) -> bool:
        if path_of(kind_of_record(record)) not in apart or not is_doubtful(record["environment"]):
            return False
        is_here = index.is_pending(record["row_id"]) is not None
        taken_back.num_elsewhere += not is_here
        return is_here

    for row_ids, num_bytes in withdraw(store, goes, lock):
        taken_back.num_rows += len(row_ids)
        taken_back.num_bytes += num_bytes
        if has_begun:
            taken_back.num_before += index.render_again(row_ids)
    if taken_back.num_rows:
        lock.seal()  # parts of earlier runs are gone, but that is not damage
    return taken_back


def finish_taking_back(store: Store, index: RowIndex, lock: DriverLock) -> None:
    """Finish what a killed driver left undone, before records are read."""
    if apart := {*store.list(APART)}:
        take_back(store, index, apart, lock, has_begun=False)


def note_apart(store: Store, kind: str) -> None:
    """Note, for later drivers, that rows of this kind were rendered wrong in a batch."""
    store.create(path_of(kind), canonical_json({"kind": kind}).encode())


def path_of(kind: str) -> str:
    return f"{APART}/{hashlib.sha256(kind.encode()).hexdigest()[:16]}.json"
