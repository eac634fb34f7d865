"""Check the files of an output, or render some of its rows again, here or on a fleet, and compare."""

from __future__ import annotations

import hashlib
import heapq
import uuid
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from framefleet.api import Scope
from framefleet.api.clips import (
    Audio,
    Clip,
    FileStep,
    Media,
    Request,
    StepInput,
    decode,
    decode_audio,
    read_metadata,
)
from framefleet.api.commands import Callback, Checked, Overview, Watch, wait_for
from framefleet.api.errors import FramefleetError, JobError, count_text
from framefleet.api.jobs import (
    JOB_JSON,
    Job,
    below,
    claim_of,
    load_job,
    read_claim,
    sections,
    store_of_job,
    table_of,
)
from framefleet.api.outputs import (
    CLAIM,
    Output,
    OutputFiles,
    Record,
    Store,
    kept_in,
    outputs_in,
    told_arguments,
)
from framefleet.api.sections import AtLeastOne
from framefleet.jobs.job.job_json import with_begun_fit
from framefleet.jobs.job.schema import StepsSection
from framefleet.jobs.job.steps import kinds_of
from framefleet.jobs.render.claim import differences_of
from framefleet.jobs.render.render import render_rows
from framefleet.pipeline.errors import setting
from framefleet.pipeline.outputs.encode_clip import encode_file
from framefleet.pipeline.outputs.frames.result import KeptSteps
from framefleet.pipeline.outputs.media.media import decode_floats
from framefleet.pipeline.outputs.media.media_settings import LOSSY, Embed
from framefleet.pipeline.outputs.output import claim_in_parts_as, recorded_clip
from framefleet.pipeline.outputs.parts.records import values_of
from framefleet.pipeline.recipes.catalog import BUILT_IN, is_of_user
from framefleet.plugins.keep.damage import (
    ClipIndex,
    Damage,
    beside_parts,
    damage_below,
    damaged_records,
    look_at_row,
    other_parts,
    strays,
)
from framefleet.plugins.keep.pack_list import damages_of_pack
from framefleet.plugins.keep.record_law import unsound_files
from framefleet.plugins.keep.replay.compare import Again, Compared, Likeness, compare
from framefleet.plugins.keep.replay.given import NOTHING, Given
from framefleet.plugins.keep.replay.machines import audits_for
from framefleet.plugins.keep.replay.recorded_row import recorded_of, steps_again
from framefleet.plugins.keep.replay.replay import Replayer, embed_of, environment_differences, media_again
from framefleet.plugins.keep.verify.row_process import replay_alone

_NOT_FOUND = JobError("the table no longer has this row", "leave it out, or restore the table")
# Replaces lossy formats, whose files do not contain the exact frames.
_LOSSLESS = {"format": "mkv", "encoder": None, "crf": None}
_KIND = ("recipe", "height", "width", "num_frames")
_COLUMNS = ("row_id", *_KIND, "node", "worker")
SCRATCH = ".verify"  # folder of an output for what a fleet renders again
NUM_SAMPLED = 8  # a row may take a minute
_MAX_CANDIDATES = 100_000  # some 50 MB, however many records there are


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Verified(Overview):
    """The result of `verify`."""

    rows: tuple[VerifiedRow, ...] = ()  # rendered again
    damages: tuple[Damage, ...] = ()  # including leftovers
    num_read: int | None = None  # rows whose files were read; None without `files`

    def overview(self) -> Mapping[str, object]:
        damages = [one for one in self.damages if not one.is_leftover]
        return {
            "rendered again": count_text(len(self.rows), "row") if self.rows else None,
            "verdicts": ", ".join(f"{count:,} {verdict}" for verdict, count in self.verdicts.items()) or None,
            "read": None if self.num_read is None else f"the files of {count_text(self.num_read, 'row')}",
            "damages": None if self.num_read is None else f"{len(damages):,}",
            "leftovers": f"{len(self.damages) - len(damages):,}" if self.damages else None,
            "is well": self.is_well,
        }

    @property
    def verdicts(self) -> Counter[Likeness]:
        """Number of rows with each verdict."""
        return Counter(row.compared.verdict for row in self.rows)

    @property
    def is_well(self) -> bool:
        """Whether all rows are bit-exact, and no file is damaged."""
        return all(row.is_well for row in self.rows) and all(one.is_leftover for one in self.damages)


def verify(
    output: str | Path,
    *,
    files: bool = False,
    sample: AtLeastOne | None = None,
    seed: int = 0,
    row_ids: Collection[str] = (),
    fleet_job: Job | str | Path | Mapping[str, Any] | None = None,
    given: Given = NOTHING,
    sets: Sequence[str] = (),
) -> Verified:
    """Render some rows of an output again and compare them. With files, compare the digests of all files.

    sample: number of rows, chosen by seed; 8 if unset. row_ids: check these rows instead of a sample.
    fleet_job: the output's job file or its content, to render on its fleet; None: in this process. sets:
    changes to it, e.g. "fleet.workers=2". given: what the output is not trusted with. Raises JobError if it
    has no such rows.
    """
    watch, output = Callback(), str(output)
    is_by_fleet = fleet_job is not None
    check_one_way(files, sample=sample, seed=seed, row_ids=row_ids, by_fleet=is_by_fleet, given=given)
    if files:
        store = Output.open(output, given.storage_options).store
        last = deque([Checked(num_rows=0)], maxlen=1)
        damages = tuple(damages_of(store, Callback(last.append, Checked)))
        return Verified(damages=damages, num_read=last[0].num_rows)
    job = None if fleet_job is None else load_job(fleet_job, sets)
    rows = verified_rows(output, watch, sample=sample, seed=seed, row_ids=row_ids, job=job, given=given)
    return Verified(rows=tuple(rows))


def check_one_way(
    files: bool, *, sample: int | None, seed: int, row_ids: Collection[str], by_fleet: bool, given: Given
) -> None:
    """Raise JobError for options that contradict each other or have no effect."""
    names = [field.name for field in fields(given) if field.name not in ("audit", "storage_options")]
    moved = [name for name in names if getattr(given, name) != getattr(NOTHING, name)]
    places = [f"--{name.replace('_', '-').rstrip('s')}" for name in moved]
    chosen = {"--row": row_ids, "--sample": sample, "--fleet": by_fleet, "--seed": seed}
    chosen |= {"--audit": given.audit} | dict.fromkeys(places, True)
    if files and (others := [option for option, value in chosen.items() if value]):
        problem = f"--files reads every file and renders nothing, but {others[0]} is for rows to render"
        raise JobError(problem, "leave one of them out")
    if row_ids and sample:
        raise JobError("--row names the rows, but --sample chooses some", "leave one of them out")
    if row_ids and seed:
        raise JobError("--row names the rows, but --seed is for choosing some", "leave one of them out")
    if by_fleet and places:
        problem = f"{places[0]} has no effect with --fleet, which opens what its job file names"
        raise JobError(problem, "leave it out, or give the job's key, e.g. --set model.path=PLACE")


def damages_of(store: Store, watch: Watch) -> Iterator[Damage]:
    """Read every file of an output and of its inner outputs; yield each damage when it is found."""
    num_before = num_read = 0

    def checked(count: int) -> None:
        nonlocal num_read
        num_read = num_before + count
        watch.show(Checked(num_rows=num_read))

    for name, one in outputs_in(store).items():
        num_before = num_read
        if damage := job_damage(one):
            yield damage_below(name, damage)
        yield from damages_of_pack(one)
        wait_for(watch, f"reading the files of {one.url_of('')}")
        with closing(ClipIndex()) as index:
            read = damaged_records(one, index, checked), beside_parts(one), other_parts(one)
            for damages in (*read, strays(one, index)):
                yield from (damage_below(name, damage) for damage in damages)


def job_damage(store: Store) -> Damage | None:
    """Return what is wrong with job.json: lost, damaged, or of another job than the records."""
    try:
        claim = read_claim(store)
    except FileNotFoundError:
        return Damage(kind="job", path=CLAIM, reason="it is missing")
    except JobError as error:
        return Damage(kind="job", path=CLAIM, reason=error.problem)
    try:
        original = claim_in_parts_as(store, JOB_JSON)
    except JobError:  # a part is damaged; reported elsewhere
        return None
    if wrong := unsound_files(claim):
        return Damage(kind="job", path=CLAIM, reason=wrong)
    differences = differences_of(original.model_dump(), claim.model_dump()) if original else []
    if not differences:
        return None
    return Damage(kind="job", path=CLAIM, reason=f"of another job than the records; {differences[0].strip()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRow:
    """One row, rendered again."""

    record: Record
    compared: Compared
    damages: tuple[Damage, ...]  # of its stored files
    differences: tuple[tuple[str, str, str], ...] = ()  # (name, then, now), of its environment
    error: FramefleetError | None = None  # why it was not rendered

    @property
    def is_well(self) -> bool:
        """Whether it is bit-exact, and its stored files match its record."""
        return self.compared.verdict == "bit-exact"


def verified_rows(
    output: str,
    watch: Watch,
    *,
    sample: int | None,
    seed: int,
    row_ids: Collection[str],
    job: Job | None,
    given: Given,
) -> Iterator[VerifiedRow]:
    """Render rows again as `verify` does; yield each when it is done. job: whose fleet to use; None: here."""
    opened = Output.open(output, job.storage_options if job else given.storage_options)
    store = opened.store
    for damage in damages_of_pack(store):
        problem = f"{store.url_of(damage.path)} is not as it was packed: {damage.reason}"
        raise JobError(problem, "get the pack again; `framefleet verify --files` lists all such files")
    if job and (place := store_of_job(job).url_of("")) != opened.url:
        fix = f"give the job file of {opened.url}; or, if it was moved, add {setting('output', output)}"
        raise JobError(f"--fleet: the output of this job is {place}", fix)
    if not row_ids:
        row_ids = [row.row_id for row in sample_rows(opened, sample or NUM_SAMPLED, seed=seed)]
        opened = opened.holding(row_ids)
    records = [opened.record(row_id) for row_id in row_ids]
    opened = opened.holding([record.row_id for record in records])
    if not records:
        raise opened.no_records()
    if job:
        # Which steps are stored, and what is embedded in files, may change between runs. Render each row as
        # its record says.
        groups: dict[tuple[KeptSteps, Embed], list[Record]] = {}
        for record in records:
            groups.setdefault((kept_in(record.extra_outputs), embed_of(record)), []).append(record)
        for (steps, embed), alike in groups.items():
            of_group = job.model_copy(update={"media": job.media.model_copy(update={"embed": embed})})
            yield from _by_fleet(of_group, opened, alike, watch, steps, given)
        return
    claim, replayer = claim_of(store), Replayer(given)
    for record in records:
        try:
            # Rows of a user's recipe get a process each; others are rendered in this one.
            if record.recipe in (*given.recipes, *BUILT_IN) and is_of_user(record.recipe):
                replayed = replay_alone(output, record, given)
            else:
                replayed = replayer.replay(recorded_of(opened, claim, record, given))
        except FramefleetError as error:  # of this row or its model; the next row may have another model
            yield _not_rendered(opened, record, error)
            continue
        yield VerifiedRow(
            record=record,
            compared=replayed.compared,
            damages=replayed.damages,
            differences=replayed.differences,
        )


def _by_fleet(
    job: Job,
    output: Output,
    records: Sequence[Record],
    watch: Watch,
    keep: KeptSteps,
    given: Given,
) -> Iterator[VerifiedRow]:
    """Render rows again as their job did; yield them when all are done. keep: steps stored for these rows."""
    row_ids, store = [record.row_id for record in records], output.store
    audits = audits_for(store, given.audit, given.storage_options)
    claimed = claim_of(store).job
    media = media_again(claimed, records[0])
    # The fleet's steps have changed the frames already. These only make files, so no pickle is opened.
    steps = steps_again(claimed.model_dump(), allow_pickle=True).values()
    lossless = job.media.model_copy(update=_LOSSLESS if media.format in LOSSY else {"format": media.format})
    kept_steps = StepsSection.model_validate(asdict(keep), strict=False)  # a list instead of a tuple
    folder = f"{SCRATCH}/{uuid.uuid4().hex}"
    try:
        scratch = render_again(job, folder, row_ids, watch, media=lossless, keep=kept_steps)
        rendered_now = Output(scratch)
        there = (
            row_id for table in rendered_now.records(["row_id"]) for row_id in table["row_id"].to_pylist()
        )
        again = {row_id: rendered_now.record(row_id) for row_id in there}
        errors = {
            row.row_id: JobError(f"it failed: {row.error_type}: {row.message}", row.fix)
            for row in rendered_now.failures(with_inner=False)
        }
        for then in records:
            if then.row_id not in again:
                yield _not_rendered(output, then, errors.get(then.row_id, _NOT_FOUND))
            else:
                damages = look_at_row(output, then.row_id)
                differences = environment_differences(then, again[then.row_id])
                now = rendered(scratch, again[then.row_id], media, steps)
                yield VerifiedRow(
                    record=then,
                    compared=compare(store, then, now, damages=damages, changes=differences, audits=audits),
                    damages=tuple(damages),
                    differences=differences,
                )
    finally:
        store.delete_all(folder)


def _not_rendered(output: Output, record: Record, error: FramefleetError) -> VerifiedRow:
    damages = look_at_row(output, record.row_id)
    compared = Compared(verdict="not rendered")
    return VerifiedRow(record=record, compared=compared, damages=tuple(damages), error=error)


def render_again(job: Job, folder: str, row_ids: Collection[str], watch: Watch, **changed: Any) -> Store:
    """Render rows of a job again, to compare frames and sound; return the output with them.

    folder: of the new output, in the job's output. changed: keys of the job.
    """
    place = below(job, folder)
    store, again = store_of_job(job), store_of_job(job, place)
    for path in OutputFiles(store).added():  # the table has added rows where they are in the output
        again.write(path, store.read(path))
    plain_sections = {name: _compared(job, name) for name in sections()}
    plain = with_begun_fit(job, store).model_copy(update={"output": place, **plain_sections, **changed})
    render_rows(plain, watch, Scope(only=row_ids, table=table_of(job)))
    return again


def _compared(job: Job, name: str) -> Any:
    """Return the section of a job with which rows are rendered again to compare frames and sound."""
    section, kind, default = getattr(job, name), kinds_of(job).get(name), Job.model_fields[name].default
    if kind is None or not kind.changes_file:
        return default
    return section.model_copy(
        update={key: type(section).model_fields[key].default for key in section.of_files}
    )


def rendered(scratch: Store, record: Record, media: Media, steps: Collection[FileStep] = ()) -> Again:
    """Return a row that a fleet rendered again. media, steps: how the original clips are encoded."""
    path = recorded_clip(values_of(record)).path
    read = cache(partial(scratch.read, path))
    read_frames = decode_floats if (record.frames_format or "").endswith("float32") else decode
    return Again(
        record=record,
        media=media,
        frames=lambda: None if record.frames_format is None else read_frames(read()),
        content=lambda: _encoded(record, read(), media, steps) if media.format in LOSSY else read(),
        extras=lambda: Output(scratch).extras(values_of(record)),
    )


def _encoded(record: Record, content: bytes, media: Media, steps: Collection[FileStep]) -> bytes:
    """Encode a clip in the format of the original output."""
    assert record.fps is not None, "mkv always has one"
    tags, sound = read_metadata(content), decode_audio(content)
    audio = None
    if sound:
        samples = sound[0].T.astype(np.float32) / np.float32(32767)
        audio = Audio(samples=samples, sample_rate=sound[1])
    clip = Clip(  # as recorded, without frames and sound
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
    of = StepInput(clip=clip, media=media)
    return encode_file(of, steps, decode(content), audio, fps=record.fps, tags=tags)


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A row that may be chosen, low lots first. The lot depends on the seed."""

    lot: bytes
    row_id: str
    group: tuple[str, str, str]  # kind, node, worker


def sample_rows(
    output: Output, count: int, *, seed: int = 0, among: Collection[str] | None = None
) -> list[Candidate]:
    """Choose `count` rows, or all if there are fewer, spread over kinds, nodes and workers.

    The same records and seed give the same rows. among: the row_ids to choose from; None: all.
    """
    # Keep the rows with the lowest lots of each group.
    groups: dict[tuple[str, str, str], list[Candidate]] = {}
    max_groups = max(1, _MAX_CANDIDATES // count)
    rows = (row for table in output.records(_COLUMNS) for row in table.to_pylist())
    for row in rows:
        if among is not None and row["row_id"] not in among:
            continue
        lot = hashlib.sha256(f"{seed} {row['row_id']}".encode()).digest()[:8]
        kind = " ".join(str(row[name]) for name in _KIND)
        key = (kind, row["node"], row["worker"])
        one = Candidate(lot, row["row_id"], key)
        if key not in groups and len(groups) >= max_groups:
            key = ("", "", "")  # all others; names of groups are not trusted, so their number is bounded
        group = groups.setdefault(key, [])
        group.append(one)
        if len(group) > 2 * count:
            group[:] = heapq.nsmallest(count, group)
    lowest = (one for group in groups.values() for one in heapq.nsmallest(count, group))
    # Choose one at a time: the row whose kind, node and worker are rarest among the chosen.
    left = sorted({one.row_id: one for one in lowest}.values())
    if len(left) <= count:
        return left
    chosen: list[Candidate] = []
    counts = Counter[tuple[int, str]]()  # of the chosen rows, by kind, by node and by worker
    while len(chosen) < count:
        best = min(left, key=lambda one: ([counts[word] for word in enumerate(one.group)], one.lot))
        left.remove(best)
        chosen.append(best)
        counts.update(enumerate(best.group))
    return chosen
