"""From the clips of an output to the columns that are filled in later, as parts in scores/.

An answer is about a clip's bytes and what its column's digest says, so equal ones are asked for once,
whatever their column. Nothing is written for what nobody answers: a later pass asks again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from framefleet.cluster.driver.lock import BEAT_S, STOP, requests_to
from framefleet.jobs.doors import inner_outputs_of
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.output import below, store_of_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.job.steps import check_recorded, for_choice, kinds_of
from framefleet.jobs.show.watch import Callback, ClipsPace, Watch, wait_for
from framefleet.pipeline.errors import FramefleetError, JobError, StoreError, count_text
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.outputs.clip_step import CellValue, LateStep, cell_of, late_columns, may_answer_later
from framefleet.pipeline.outputs.frames.frames import Frames, plain_frames
from framefleet.pipeline.outputs.layout import RECORDS, SCORES
from framefleet.pipeline.outputs.output import Output, recorded_frames
from framefleet.pipeline.outputs.parts.part_file import columns_of
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.record_tables import OF_CLIP, record_schema_of, taken_columns
from framefleet.pipeline.outputs.parts.records import column_digest, with_arguments
from framefleet.pipeline.outputs.parts.seals import Part, epochs_of, live_parts, new_run, parts_in
from framefleet.pipeline.outputs.query import records_where
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.plugins.words.endpoint import counting_requests, each_answer, end_requests

# New records are looked for this often, and at most a twentieth of the time: it reads all of scores/.
_POLL_S, _POLL_SHARE, _MAX_PAUSE_S = 3.0, 0.05, 60.0
_MAX_MESSAGE = 300  # characters
_MAX_FAULTS = 3  # in a row: then a plugin's service is down, and not only without an answer to these clips
_DECODING = threading.Semaphore(8)  # clips in memory as a whole: 81 frames of 720p take 224 MB

log = logging.getLogger(__name__)


def late_steps(job: Job, *, at_end: bool | None = None) -> dict[str, LateStep]:
    """Return the job's steps whose columns are filled in later. at_end: only those with a condition, or
    only those without.

    Raises UserError for what cannot be used.
    """
    opened = (
        (name, kind.open(getattr(job, name), folder=job.folder))
        for name, kind in kinds_of(job).items()
        if issubclass(kind, LateStep)
    )
    return {
        name: step
        for name, step in opened
        if isinstance(step, LateStep) and at_end in (None, step.where is not None)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """What became of one clip, by column. errors: why there is no value. later: nobody answers now."""

    values: Mapping[str, CellValue] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    later: Sequence[str] = ()


class Answers:
    """Fills in the late columns of one output, pass after pass."""

    def __init__(self, store: Store, steps: Mapping[str, LateStep]) -> None:
        """Raises JobError where a column has answers to another question, or is another's."""
        store.below(SCORES).sweep()  # what a killed run left half written
        self._store, self._steps = store, steps
        self._step_of = {name: step for step in steps.values() for name in step.columns.names}
        self._fields = pa.schema([field for step in steps.values() for field in step.columns])
        self._digests = {one.name: column_digest(one) for one in self._fields}
        self._unwritten: dict[tuple[str, str], CellValue] = {}  # by clip and column: answers in no part yet
        self._ended = threading.Event()
        self._refused: dict[tuple[str, str], str] = {}  # by row and column: why it has no answer in this run
        self._troubles: dict[str, Exception] = {}  # of this pass, by column
        self._num_faults: Counter[str] = Counter()  # in a row, by column
        self.num_answers = 0  # that were asked for
        self.num_left: Counter[str] = Counter()  # clips without a value after the last pass, by column
        columns: dict[bytes, set[str]] = {}  # by digest
        for name, digest in self._digests.items():
            columns.setdefault(digest, set()).add(name)
        check_recorded(steps, store)
        taken = taken_columns(store)
        for part in parts_in(self._store, SCORES):
            names = columns_of(self._store, part.path)[0]
            digests = {one.name: column_digest(one) for one in names}
            for name in digests.keys() & self._digests.keys():
                if digests[name] != self._digests[name]:
                    raise JobError(
                        f"{self._store.url_of('')} has answers to another question in the column {name!r}",
                        "undo the change of model, question, answer, frames or options; or give the column "
                        "another name",
                    )
            for name in digests.keys() - taken:
                columns.setdefault(digests[name], set()).add(name)
        # By column, the others with the same question, also those that the job has no longer.
        self._same = {name: columns[one] - {name} if one else set() for name, one in self._digests.items()}

    def end(self) -> None:
        """Have a pass end soon, from any thread."""
        self._ended.set()

    @property
    def problem(self) -> str:
        """Why columns are null, for people; "" if nothing is left."""
        reasons = [_message(error) for error in self._troubles.values()]
        reasons += [f"row {row_id}: {message}" for (row_id, _), message in self._refused.items()]
        left = ", ".join(
            f"{count_text(num, 'clip')} without {name}" for name, num in self.num_left.items() if num
        )
        return left and f"{left}, e.g. {reasons[0] if reasons else 'they are not rendered as recorded'}"

    def fill(self, parts: Sequence[Part] | None = None, watch: Watch | None = None) -> bool:
        """Ask about all clips that lack a value; return whether everybody answered who was asked.

        parts: of records; None: all that count.
        """
        self._troubles.clear()
        self._num_faults.clear()
        total = sum(1 for _ in self._left(parts)) if watch else 0
        pace = ClipsPace("asked about", total=total, watch=watch) if watch and total else None
        self.num_left.clear()
        schema = pa.schema([("row_id", pa.string()), *OF_CLIP, *self._fields])
        writer = PartWriter(self._store, SCORES, schema, run=new_run(0))
        num_threads = max(step.num_parallel for step in self._steps.values())

        def take(question: tuple[dict[str, Any], list[str]], answered: _Answered) -> None:
            record, _ = question
            for name, message in answered.errors.items():
                self._refused[record["row_id"], name] = message
            self.num_left.update([*answered.errors, *answered.later])
            if answered.values:
                clip = record["media_sha256"]
                self._unwritten |= {(clip, name): value for name, value in answered.values.items()}
                cells = {**dict.fromkeys(self._fields.names), **answered.values}
                of_clip = {name: record[name] for name in ("row_id", "media_sha256")}
                writer.add(None, of_clip | cells)
                if writer.due(time.monotonic()):
                    flush()
            if pace:
                pace.add(1)

        def flush() -> None:
            writer.flush()
            self._unwritten.clear()

        def end() -> None:
            self.end()
            end_requests()

        try:
            each_answer(self._left(parts), self._answered, take, parallel=num_threads, end=end)
        finally:
            flush()
        return not self._troubles

    def _left(self, parts: Sequence[Part] | None) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """Yield the records that lack values, with the names of these columns."""
        schema = record_schema_of(self._store, parts)
        for condition in {step.where for step in self._steps.values()}:
            names = [name for name, step in self._step_of.items() if step.where == condition]
            for table in records_where(self._store, schema.names, condition, parts):
                for record in table.to_pylist():
                    lacking = [name for name in names if record.get(name) is None]
                    refused = [name for name in lacking if (record["row_id"], name) in self._refused]
                    self.num_left.update(refused)
                    lacking = [name for name in lacking if name not in refused]
                    if lacking:
                        yield record, lacking

    def _answered(self, question: tuple[dict[str, Any], list[str]]) -> _Answered:
        """Ask for columns of a clip, by its record, unless one with the same question has an answer."""
        record, names = question
        values: dict[str, CellValue] = {}
        errors: dict[str, str] = {}
        later: list[str] = []
        frames: Mapping[str, Frames | None] = {}
        for name in names:
            there = [values.get(other, record.get(other)) for other in self._same[name]]
            there.append(self._unwritten.get((record["media_sha256"], name)))
            if answers := [value for value in there if value is not None]:
                values[name] = answers[0]
                continue
            if self._ended.is_set() or self._num_faults[name] >= _MAX_FAULTS:
                later.append(name)
                continue
            try:
                frames = frames or self._frames(record, names)
                value = self._step_of[name].ask(name, frames[name], with_arguments(record))
                if value is None:
                    raise ValueError("there is no answer")
                values[name] = cell_of(self._fields.field(name), value)
            except Exception as error:  # anybody's step; a damaged clip
                if may_answer_later(error):
                    self._troubles[name] = error
                    self._num_faults[name] += 1 if isinstance(error, OSError) else _MAX_FAULTS
                    later.append(name)
                else:
                    errors[name] = _message(error)
            else:
                self.num_answers += 1
                self._num_faults[name] = 0
        return _Answered(values=values, errors=errors, later=later)

    def _frames(self, record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Frames | None]:
        """Return what each column's question needs of a clip's frames."""
        if record["frames_sha256"] is None:
            return dict.fromkeys(names)
        with _DECODING:
            frames = plain_frames(recorded_frames(self._store, record))
            return {name: self._step_of[name].thinned(name, frames) for name in names}

    def follow(self, ending: threading.Event) -> None:
        """Ask about clips as they get records, until `ending` is set. Raises nothing."""
        done: set[Part] = set()
        pause_s = _POLL_S
        while not ending.wait(pause_s) and not self._ended.is_set():
            started = time.monotonic()
            try:
                new = [part for part in live_parts(self._store) if part not in done]
                if not new or self.fill(new):
                    done.update(new)
                    pause_s = _POLL_S if new else max(_POLL_S, (time.monotonic() - started) / _POLL_SHARE)
                else:
                    pause_s = min(2 * pause_s, _MAX_PAUSE_S)
            except Exception as error:  # of stores, mostly; the last pass reports what stays
                log.info("%s", public_text(f"asking about clips: {error}"))
                pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def end_if_stopped(self, ended: threading.Event) -> None:
        """Have a pass end soon once `framefleet stop` asks for it; look until `ended` is set."""
        while not ended.wait(BEAT_S):
            with suppress(StoreError):  # the next look may succeed
                is_asked = STOP in requests_to(self._store, max(epochs_of(self._store), default=0))
                if is_asked and not ended.is_set():  # else those that are there now are of another run
                    self.end()
                    end_requests()
                    return


def check_questions(job: Job) -> None:
    """Raise JobError for a column of an output, or of its drafts, that has answers to another question."""
    for one in _jobs_of_outputs(job).values():
        if steps := late_steps(one):
            Answers(store_of_job(one), steps)


def _jobs_of_outputs(job: Job) -> dict[str, Job]:
    """Return what asks about each inner output, by its name, and the job."""
    names, of_inner = inner_outputs_of(job), for_choice(job)
    inner = {name: job.model_copy(update={"output": below(job, name), **of_inner}) for name in names}
    return {**inner, "": job}


@contextmanager
def following(job: Job, watch: Watch) -> Iterator[None]:
    """Fill in late columns while a job's rows are rendered, and all that are left when they have ended.

    An endpoint that is down delays nothing: its columns stay null. Entering it raises UserError.
    """
    if at_end := late_steps(job, at_end=True):
        Answers(store_of_job(job), at_end)  # before rows are rendered, whose answers it would refuse
    steps = late_steps(job, at_end=False)
    if not steps:
        yield
        return
    answers, ending, ended = Answers(store_of_job(job), steps), threading.Event(), threading.Event()
    thread = threading.Thread(target=answers.follow, args=(ending,), name="answers", daemon=True)
    thread.start()
    try:
        yield
        ending.set()
        wait_for(watch, f"waiting for {', '.join(late_columns(steps))}")
        threading.Thread(target=answers.end_if_stopped, args=(ended,), name="stop", daemon=True).start()
        thread.join()
        fill_all(answers, watch)
    finally:
        ending.set()
        ended.set()
        answers.end()
        if thread.is_alive():
            end_requests()
            thread.join()


def _message(error: Exception) -> str:
    message = error.problem if isinstance(error, FramefleetError) else f"{error}"
    return public_text(message or type(error).__name__)[:_MAX_MESSAGE]


def fill_all(answers: Answers, watch: Watch) -> bool:
    """Ask about all clips of an output that lack a value; report it. Return whether none lacks one now."""
    try:
        answers.fill(watch=watch)
        problem = answers.problem
    except FramefleetError as error:  # of a store, or of a condition: clips have their records all the same
        problem = error.problem
    if answers.num_answers:
        watch.say(f"{count_text(answers.num_answers, 'answer')} about clips")
    if problem:
        log.warning("%s; to ask again: %s", public_text(problem), "framefleet judge JOB.YAML")
    return not problem


def fill_at_end(job: Job, watch: Watch) -> None:
    """Fill in the columns that are about chosen clips alone."""
    steps, store = late_steps(job, at_end=True), store_of_job(job)
    if steps and parts_in(store, RECORDS):
        fill_all(Answers(store, steps), watch)


def judge(job: Job | str | Path | Mapping[str, Any], *, sets: Sequence[str] = ()) -> bool:
    """Ask about the clips of a job that have no answers yet; return whether every clip has its answers now.

    job: a job file's path, or its content. sets: as "judge=[...]". The same call continues after an
    interruption. Raises JobError for a job that asks nothing, or has no clips.
    """
    return judge_clips(job, Callback(), sets)


@counting_requests()
def judge_clips(job: Job | str | Path | Mapping[str, Any], watch: Watch, sets: Sequence[str] = ()) -> bool:
    """Do what `judge` does, reporting to `watch`."""
    job = load_job(job, sets)
    outputs = _jobs_of_outputs(job).items()
    with_clips = {name: one for name, one in outputs if parts_in(store_of_job(one), RECORDS)}
    if not late_steps(job):
        raise JobError("the job asks nothing about its clips", "give it a section `judge` or `captions`")
    if not with_clips:
        raise Output(store_of_job(job)).no_records()
    is_whole = True
    for name, one in with_clips.items():
        if steps := late_steps(one):
            if name:
                watch.say(f"{name}:")
            is_whole &= fill_all(Answers(store_of_job(one), steps), watch)
    return is_whole
