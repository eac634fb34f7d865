"""From an output to some of its rows rendered again, here or by a fleet, and how they compare.

A sample stands for all rows: chosen by chance, and of all kinds, machines and workers.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from framefleet.jobs.job.job_json import claim_of
from framefleet.jobs.keep.replay.compare import Compared, compare
from framefleet.jobs.keep.replay.recorded_row import Given, recorded_of
from framefleet.jobs.keep.replay.replay import Replayer, environment_differences, media_again
from framefleet.jobs.keep.replay.two_clips import Again
from framefleet.jobs.keep.verify.choice import RowChoice
from framefleet.jobs.keep.verify.fleet_check import rendered, rendered_by_fleet
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.errors import FramefleetError, JobError
from framefleet.pipeline.outputs.damage import Damage, look_at
from framefleet.pipeline.outputs.layout import FAILURES, RECORDS
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.part_names import new_run
from framefleet.pipeline.outputs.parts.parts import (
    find_record,
    read_records,
    record_in,
    rows_in_part,
    rows_of,
)
from framefleet.pipeline.outputs.parts.records import (
    FAILURE_FIELDS,
    FIRST_FIELDS,
    Record,
    fields_named,
    record_of,
    values_of,
)
from framefleet.pipeline.outputs.parts.seals import live_parts
from framefleet.pipeline.outputs.stores.store import Store

_NOT_FOUND = JobError("the table has no such row any more", "leave it out; or put the table back as it was")
_KIND = ("recipe", "height", "width", "num_frames")
_FIELDS = fields_named(FIRST_FIELDS, "row_id", *_KIND, "node", "worker")
_MAX_CANDIDATES = 100_000  # some 50 MB, however many records there are


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRow:
    """One row, rendered again.

    damages: of its stored files. differences: (name, then, now), of what its environment has become. error:
    why it was not rendered.
    """

    record: Record
    compared: Compared
    damages: tuple[Damage, ...]
    differences: tuple[tuple[str, str, str], ...] = ()
    error: FramefleetError | None = None

    @property
    def is_well(self) -> bool:
        """Whether it has the same bits, and the stored files are those of its record."""
        return self.compared.verdict == "bit-exact"


def verified_rows(
    output: str, choice: RowChoice, given: Given, sets: Sequence[str], watch: Watch
) -> Iterator[VerifiedRow]:
    """Render rows again and compare them, each as it is done.

    given: what the output is not trusted with. sets: as of `load_job`, for a fleet. Raises JobError where the
    output has no such rows.
    """
    store = Store(output, given.storage_options)
    records = _chosen(store, choice)
    if not records:
        raise Output(store).no_records()
    if choice.by_fleet:
        yield from _by_fleet(output, store, records, sets, watch)
    else:
        yield from _here(store, records, given)


def _chosen(store: Store, choice: RowChoice) -> list[Record]:
    if choice.row_ids:
        return [find_record(store, row_id) for row_id in choice.row_ids]
    chosen = sample_rows(store, choice.sample, seed=choice.seed)
    found = [record_in(store, one.part, one.row_id) for one in chosen]
    return [record for record in found if record]


def _here(store: Store, records: Sequence[Record], given: Given) -> Iterator[VerifiedRow]:
    """Render rows again in this process, one after the other; yield each as it is done."""
    claim, replayer = claim_of(store), Replayer(given)
    for record in records:
        try:
            replayed = replayer.replay(recorded_of(store, claim, record, given))
        except FramefleetError as error:  # of this row, or of its model: the next may be of another
            yield _not_rendered(store, record, error)
            continue
        yield VerifiedRow(
            record=record,
            compared=replayed.compared,
            damages=replayed.damages,
            differences=replayed.differences,
        )


def _by_fleet(
    output: str, store: Store, records: Sequence[Record], sets: Sequence[str], watch: Watch
) -> Iterator[VerifiedRow]:
    """Render rows again as their job did; yield them when all are done."""
    row_ids = [record.row_id for record in records]
    media = media_again(claim_of(store).job.media)
    with rendered_by_fleet(output, row_ids, sets, watch, format=media.format, run=new_run(0)) as scratch:
        where = scratch.url_of(RECORDS)
        again = {row["row_id"]: record_of(row, where) for row in rows_of(read_records(scratch), where)}
        errors = _errors(scratch)
        for then in records:
            if then.row_id not in again:
                yield _not_rendered(store, then, errors.get(then.row_id, _NOT_FOUND))
            else:
                yield _of_fleet(store, then, rendered(scratch, again[then.row_id], media))


def _of_fleet(store: Store, then: Record, again: Again) -> VerifiedRow:
    _, damages = look_at(store, values_of(then))
    differences = environment_differences(then, again.record)
    return VerifiedRow(
        record=then,
        compared=compare(store, then, again, damages=damages, changes=differences),
        damages=tuple(damages),
        differences=differences,
    )


def _not_rendered(store: Store, record: Record, error: FramefleetError) -> VerifiedRow:
    _, damages = look_at(store, values_of(record))
    compared = Compared(verdict="not rendered")
    return VerifiedRow(record=record, compared=compared, damages=tuple(damages), error=error)


def _errors(scratch: Store) -> dict[str, FramefleetError]:
    """Return why rows failed, by row_id."""
    fields = fields_named(FAILURE_FIELDS, "row_id", "error_type", "message")
    failed = read_records(scratch, FAILURES, fields, maybe=pa.schema([]))
    return {
        row["row_id"]: JobError(f"row {row['row_id']} failed: {row['error_type']}: {row['message']}")
        for row in rows_of(failed, scratch.url_of(FAILURES))
    }


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A row that may be chosen. lot: by it, the lower the sooner; it depends on the seed."""

    lot: bytes
    row_id: str
    part: str
    kind: str
    node: str
    worker: str


def sample_rows(store: Store, count: int, *, seed: int = 0) -> list[Candidate]:
    """Return `count` rows, or all if there are fewer: spread over kinds, nodes and workers.

    Equal records and an equal seed give the same rows.
    """
    return _spread(_candidates(store, count, seed), count)


def _candidates(store: Store, count: int, seed: int) -> list[Candidate]:
    """Return of each group of like rows those with the lowest lots."""
    groups: dict[tuple[str, ...], list[tuple[int, Candidate]]] = {}
    max_groups = max(1, _MAX_CANDIDATES // count)
    for one in _all(store, seed):
        group = (one.kind, one.node, one.worker)
        if group not in groups and len(groups) >= max_groups:
            group = ("", "", "")  # the rest together: what a group is called may be anybody's
        heap = groups.setdefault(group, [])
        entry = (-int.from_bytes(one.lot), one)
        if len(heap) < count:
            heapq.heappush(heap, entry)
        elif entry > heap[0]:
            heapq.heapreplace(heap, entry)
    return [one for heap in groups.values() for _, one in heap]


def _all(store: Store, seed: int) -> Iterator[Candidate]:
    for part in live_parts(store):
        for rows in rows_in_part(store, part.path, _FIELDS):
            for row in rows:
                lot = hashlib.sha256(f"{seed} {row['row_id']}".encode()).digest()[:8]
                kind = " ".join(str(row[name]) for name in _KIND)
                yield Candidate(lot, row["row_id"], part.path, kind, row["node"], row["worker"])


def _spread(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Choose one after the other what there is least of among the chosen."""
    left = sorted({one.row_id: one for one in candidates}.values())
    chosen: list[Candidate] = []
    kinds, nodes, workers = Counter[str](), Counter[str](), Counter[str]()
    while left and len(chosen) < count:
        best = min(left, key=lambda one: (kinds[one.kind], nodes[one.node], workers[one.worker], one.lot))
        left.remove(best)
        chosen.append(best)
        for counter, name in ((kinds, best.kind), (nodes, best.node), (workers, best.worker)):
            counter[name] += 1
    return chosen
