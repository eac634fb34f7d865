"""From rows of an output to the same rows rendered again, here or by a fleet, and how they compare."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from framefleet.doors import runners_of
from framefleet.jobs.job.job_json import claim_of
from framefleet.jobs.job.steps import for_comparison, steps_again
from framefleet.jobs.keep.replay.compare import Again, Compared, compare
from framefleet.jobs.keep.replay.recorded_row import Given, recorded_of
from framefleet.jobs.keep.replay.replay import Replayer, environment_differences, media_again
from framefleet.jobs.keep.verify.row_process import replay_alone
from framefleet.jobs.render.output_job import claimed_job
from framefleet.jobs.render.render import render_rows
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.errors import FramefleetError, JobError
from framefleet.pipeline.outputs.clip_step import ClipStep, StepInput
from framefleet.pipeline.outputs.clips import Clip
from framefleet.pipeline.outputs.damage import Damage, look_at
from framefleet.pipeline.outputs.encode_clip import encode_file
from framefleet.pipeline.outputs.frames.audio import Audio
from framefleet.pipeline.outputs.layout import FAILURES, RECORDS, SCRATCH
from framefleet.pipeline.outputs.media.media import decode, decode_audio, decode_floats, read_metadata
from framefleet.pipeline.outputs.media.media_settings import LOSSY, Media, MediaFormat
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.parts import (
    find_record,
    read_folder,
    record_in,
    rows_in_table,
    rows_of,
    tables_by_part,
)
from framefleet.pipeline.outputs.parts.records import (
    FAILURE_FIELDS,
    FIRST_FIELDS,
    Record,
    fields_named,
    record_of,
    told_arguments,
    values_of,
)
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.outputs.record_files import recorded_clip
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.lane_key import lane_named

_NOT_FOUND = JobError("the table has no such row any more", "leave it out; or put the table back as it was")
# In place of formats with loss, whose files do not say which frames were rendered.
_LOSSLESS = {"format": "mkv", "encoder": None, "crf": None}
_KIND = ("recipe", "height", "width", "num_frames")
_FIELDS = fields_named(FIRST_FIELDS, "row_id", *_KIND, "node", "worker")
_MAX_CANDIDATES = 100_000  # some 50 MB, however many records there are


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRow:
    """One row, rendered again."""

    record: Record
    compared: Compared
    damages: tuple[Damage, ...]  # of its stored files
    differences: tuple[tuple[str, str, str], ...] = ()  # (name, then, now), of what its environment is now
    error: FramefleetError | None = None  # why it was not rendered

    @property
    def is_well(self) -> bool:
        """Whether it has the same bits, and the stored files are those of its record."""
        return self.compared.verdict == "bit-exact"


def verified_rows(
    output: str,
    watch: Watch,
    *,
    sample: int,
    seed: int,
    row_ids: Collection[str],
    by_fleet: bool,
    given: Given,
    sets: Sequence[str],
) -> Iterator[VerifiedRow]:
    """Render rows again and compare them, each as it is done.

    row_ids: these; without any a sample, another for each seed. by_fleet: as the job rendered them. given:
    what the output is not trusted with. sets: as of `load_job`, for a fleet. Raises JobError where the output
    has no such rows.
    """
    store = Store(output, given.storage_options)
    if row_ids:
        records = [find_record(store, row_id) for row_id in row_ids]
    else:
        chosen = sample_rows(store, sample, seed=seed)
        records = [*filter(None, (record_in(store, row.part, row.row_id) for row in chosen))]
    if not records:
        raise Output(store).no_records()
    if by_fleet:
        yield from _by_fleet(output, store, records, sets, watch)
    else:
        yield from _here(output, store, records, given)


def _here(output: str, store: Store, records: Sequence[Record], given: Given) -> Iterator[VerifiedRow]:
    """Render rows again on this machine, one after the other; yield each as it is done.

    Those of a user's recipe each in a process of its own, all others in this one.
    """
    claim, replayer = claim_of(store), Replayer(given)
    for record in records:
        try:
            if given.recipe == record.recipe and lane_named("", record.recipe).recipe:
                replayed = replay_alone(output, record, given)
            else:
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
    claimed = claim_of(store).job
    media = media_again(claimed)
    # They only make files here, of frames that the fleet's steps have changed already: nothing is opened.
    steps = steps_again(claimed.model_dump(), allow_pickle=True).values()
    with rendered_by_fleet(output, row_ids, sets, watch, format=media.format, run=new_run(0)) as scratch:
        where = scratch.url_of(RECORDS)
        again = {row["row_id"]: record_of(row, where) for row in rows_of(read_folder(scratch), where)}
        fields = fields_named(FAILURE_FIELDS, "row_id", "error_type", "message")
        failed = read_folder(scratch, FAILURES, fields)
        errors = {
            row["row_id"]: JobError(f"row {row['row_id']} failed: {row['error_type']}: {row['message']}")
            for row in rows_of(failed, scratch.url_of(FAILURES))
        }
        for then in records:
            if then.row_id not in again:
                yield _not_rendered(store, then, errors.get(then.row_id, _NOT_FOUND))
            else:
                _, damages = look_at(store, values_of(then))
                differences = environment_differences(then, again[then.row_id])
                now = rendered(scratch, again[then.row_id], media, steps)
                yield VerifiedRow(
                    record=then,
                    compared=compare(store, then, now, damages=damages, changes=differences),
                    damages=tuple(damages),
                    differences=differences,
                )


def _not_rendered(store: Store, record: Record, error: FramefleetError) -> VerifiedRow:
    _, damages = look_at(store, values_of(record))
    compared = Compared(verdict="not rendered")
    return VerifiedRow(record=record, compared=compared, damages=tuple(damages), error=error)


@contextmanager
def rendered_by_fleet(
    output: str, row_ids: Collection[str], sets: Sequence[str], watch: Watch, *, format: MediaFormat, run: str
) -> Iterator[Store]:
    """Yield an output that holds these rows, rendered now, as far as they could be; it goes afterwards.

    sets: as of `load_job`, in place of what job.json says. format: of the output's clips; those rendered now
    are lossless. run: a name that no other such render has.
    """
    job = claimed_job(output, sets)
    place = f"{output.rstrip('/')}/{SCRATCH}/{run}"
    try:
        media = job.media.model_copy(update=_LOSSLESS if format in LOSSY else {"format": format})
        runners = runners_of(job)
        sections = dict.fromkeys(runner.section for runner in runners)
        changed = {"output": place, "media": media, **sections, **for_comparison(job)}
        plain = job.model_copy(update=changed)
        table = next(filter(None, (runner.table(job) for runner in reversed(runners))), None)
        render_rows(plain, watch, only=row_ids, table=table)
        yield Store(place, job.storage_options)
    finally:
        Store(output, job.storage_options).delete_all(f"{SCRATCH}/{run}")


def rendered(scratch: Store, record: Record, media: Media, steps: Collection[ClipStep] = ()) -> Again:
    """Return a row that a fleet rendered. media, steps: how the clips of its output are made."""
    path = recorded_clip(values_of(record)).path
    read = cache(partial(scratch.read, path))
    read_frames = decode_floats if (record.frames_format or "").endswith("float32") else decode
    return Again(
        record=record,
        media=media,
        frames=lambda: None if record.frames_format is None else read_frames(read()),
        content=lambda: _encoded(record, read(), media, steps) if media.format in LOSSY else read(),
    )


def _encoded(record: Record, content: bytes, media: Media, steps: Collection[ClipStep]) -> bytes:
    """Return the file of the output's own format."""
    assert record.fps is not None, "mkv has one always"
    tags, sound = read_metadata(content), decode_audio(content)
    audio = None
    if sound:
        samples = sound[0].T.astype(np.float32) / np.float32(32767)
        audio = Audio(samples=samples, sample_rate=sound[1])
    of = StepInput(clip=_clip(record), media=media)
    return encode_file(of, steps, decode(content), audio, fps=record.fps, tags=tags)


def _clip(record: Record) -> Clip:
    """Return what a record says of its clip, without frames and sound."""
    return Clip(
        row_id=record.row_id,
        request=Request(arguments=told_arguments(values_of(record)), seed=record.seed),
        pixels=None,
        native_fps=record.fps,
        model=record.model,
        model_digest=record.model_digest,
        numerics={},
        seconds={},
        batch_size=record.batch_size,
        peak_memory_bytes=record.peak_memory_bytes or 0,
        environment={},
        started_at=record.started_at,
    )


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
    # Choose one after the other what there is least of among the chosen.
    left = sorted({one.row_id: one for one in _candidates(store, count, seed)}.values())
    chosen: list[Candidate] = []
    kinds, nodes, workers = Counter[str](), Counter[str](), Counter[str]()
    while left and len(chosen) < count:
        best = min(left, key=lambda one: (kinds[one.kind], nodes[one.node], workers[one.worker], one.lot))
        left.remove(best)
        chosen.append(best)
        for counter, name in ((kinds, best.kind), (nodes, best.node), (workers, best.worker)):
            counter[name] += 1
    return chosen


def _candidates(store: Store, count: int, seed: int) -> list[Candidate]:
    """Return of each group of like rows those with the lowest lots."""
    groups: dict[tuple[str, ...], list[tuple[int, Candidate]]] = {}
    max_groups = max(1, _MAX_CANDIDATES // count)
    rows = (
        (path, row)
        for path, table in tables_by_part(store, _FIELDS)
        for some in rows_in_table(table, store.url_of(path))
        for row in some
    )
    for path, row in rows:
        lot = hashlib.sha256(f"{seed} {row['row_id']}".encode()).digest()[:8]
        kind = " ".join(str(row[name]) for name in _KIND)
        one = Candidate(lot, row["row_id"], path, kind, row["node"], row["worker"])
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
