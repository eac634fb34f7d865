"""Fill missing columns of an output's clips, as parts in scores/.

A question is identified by the clip and its column's digest, so equal questions are asked once, for all
columns. If a value is refused, `<column>_refused` says so, and the question is not asked again, or only by
the next run. If nobody answers now, nothing is written, and a later pass asks again.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.api.clips import ClipColumn, Frames, plain_frames
from framefleet.api.commands import ClipsPace, Watch
from framefleet.api.errors import JobError, StoreError, count_text
from framefleet.api.outputs import HOW, MAX_CLIP_BYTES, RECORD_FIELDS, RECORDS, Store, rows_of
from framefleet.cluster.driver.progress import LackingColumn
from framefleet.jobs.job.columns import check_recorded
from framefleet.pipeline.outputs.columns import (
    REFUSED,
    CellValue,
    NoValue,
    cell_asked_for,
    is_for_good,
    may_answer_later,
    refusal,
    refusal_fields,
    why_missing,
)
from framefleet.pipeline.outputs.layout import SCORES
from framefleet.pipeline.outputs.output import recorded_clip, sound_content
from framefleet.pipeline.outputs.parts.part_file import columns_of
from framefleet.pipeline.outputs.parts.parts import read_parts
from framefleet.pipeline.outputs.parts.record_tables import (
    OF_CLIP,
    clips_of,
    record_schema_of,
    taken_columns,
)
from framefleet.pipeline.outputs.parts.records import column_digest, fields_named, with_arguments
from framefleet.pipeline.outputs.parts.seals import Part, column_parts
from framefleet.pipeline.outputs.query import records_where
from framefleet.plugins.columns.column_lock import ColumnLock

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")
_MAX_FAULTS = 3  # consecutive faults; then the service is down, and not only these questions failed
_DECODING = threading.Semaphore(8)  # decoded clips in memory; 81 frames of 720p take 224 MB
_ROW_ID = fields_named(RECORD_FIELDS, "row_id")
# Columns that identify clips, and that scores by models read.
_READ = ("row_id", "uri", "path", "media_sha256", "frames_sha256", "bytes", "arguments")


class Damaged(Exception):
    """A clip differs from its record; the text says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """The outcome for one clip, by column. later: no answer now, or its clip cannot be read."""

    values: dict[str, CellValue] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # why it has none, for the column `REFUSED`
    errors: dict[str, str] = field(default_factory=dict)  # why a column without `REFUSED` has none
    later: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)  # columns whose function has returned
    damage: str = ""


class Filling:
    """Fills columns of one output in a `with` block, in one or more passes.

    columns: late ones, or others. Entering raises JobError if another process fills one of them.
    """

    def __init__(
        self,
        store: Store,
        columns: Sequence[ClipColumn],
        *,
        where: str | None = None,
        again: bool = False,
        num_threads: int = 0,
    ) -> None:
        """where: a condition on records. num_threads: clips at once; 0: as the columns say.

        again: also replace existing values, or for late columns, ask again if a value was refused. Raises
        JobError if a column has answers to another question, or belongs to another plugin.
        """
        store.below(SCORES).sweep()  # unfinished files of a killed run
        self._store, self._where, self._again = store, where, again
        self._columns = {column.name: column for column in _in_turn(columns)}
        self._num_threads = num_threads or max(column.num_parallel for column in columns)
        self._fields = pa.schema([column.field for column in columns])
        self._lock = ColumnLock(store, self._fields, [*refusal_fields(columns)])
        self.is_held, self._ended = False, threading.Event()
        self._refused: dict[tuple[str, str], str] = {}  # by row and column: why it has no value in this run
        self._troubles: dict[str, Exception] = {}  # in this pass, by column
        self._num_faults: Counter[str] = Counter()  # consecutive ones, by column
        self._taken = frozenset[str]()  # columns of records that nothing fills later
        self._awaited: dict[str, str] = {}  # in this pass, by column: what it waits for, as text
        self.num_answers = self.num_done = self.num_damaged = 0
        self.damage: str | None = None  # of the first damaged clip
        self.lacking: dict[str, LackingColumn] = {}  # columns whose function failed
        self.filled: set[str] = set()  # columns for which some clip was asked about
        self.num_left: Counter[str] = Counter()  # clips without a value after the last pass, by column
        self.num_refused: Counter[str] = Counter()  # clips that will never have a value, by column
        # Refusals only count once the question has an answer for some clip, else the service may be at fault.
        self._answered: set[str] = set()
        self._refusals: list[tuple[Mapping[str, Any], str, str]] = []  # do not count yet
        self._same = self._columns_with_same_question()

    def __enter__(self) -> Self:
        self._lock.__enter__()
        self.is_held = True
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.__exit__(*error)
        self.is_held = False

    @property
    def is_ended(self) -> bool:
        return self._ended.is_set()

    def end(self) -> None:
        """End the pass soon. May be called from any thread."""
        self._ended.set()
        for end in {column.end for column in self._columns.values() if column.end}:
            end()

    @property
    def problem(self) -> str:
        """Why columns are null, as text; "" if nothing is left."""
        reasons = [why_missing(error) for error in self._troubles.values()]
        reasons += [f"row {row_id}: {message}" for (row_id, _), message in self._refused.items()]
        reasons += self._awaited.values()
        left = ", ".join(
            f"{count_text(num, 'clip')} without {name}" for name, num in self.num_left.items() if num
        )
        return left and f"{left}, e.g. {reasons[0] if reasons else 'they are not rendered as recorded'}"

    def _columns_with_same_question(self) -> dict[str, set[str]]:
        """Return for each late column others with the same question, also former columns of the job."""
        check_recorded(self._columns.values(), self._store)
        taken = taken_columns(self._store)
        digests = {name: column_digest(one.field) for name, one in self._columns.items() if one.is_late}
        names: dict[bytes, set[str]] = defaultdict(set)
        for name, digest in digests.items():
            names[digest].add(name)
        for part in column_parts(self._store) if digests else ():
            for there in columns_of(self._store, part.path)[0]:
                digest = column_digest(there)
                if digests.get(there.name, digest) != digest:
                    raise JobError(
                        f"{self._store.url_of('')} has answers to another question in the column "
                        f"{there.name!r}",
                        "undo the change of model, question, answer, frames or options; or give the column "
                        "another name",
                    )
                if there.name not in taken:
                    names[digest].add(there.name)
        return {name: names[digest] - {name} if digest else set() for name, digest in digests.items()}

    # -- A pass --

    def fill(
        self, parts: Sequence[Part] | None = None, watch: Watch | None = None, verb: str = "asked about"
    ) -> bool:
        """Ask about all clips that lack a value; return whether all questions were answered.

        parts: of records; None: all current ones. verb: for the progress shown by `watch`.
        """
        self._lock.flush()  # values that an earlier pass could not write
        self._troubles.clear()
        self._num_faults.clear()
        self._awaited.clear()
        self._taken = taken_columns(self._store)
        nulls = {} if self._again else self._null_values()
        total = sum(1 for _ in self._left(parts, nulls, is_count=True)) if watch else 0
        pace = ClipsPace(verb, total=total, watch=watch) if watch and total else None
        self.num_left.clear()
        self.num_refused.clear()

        def take(question: tuple[dict[str, Any], list[str]], outcome: _Outcome) -> None:
            self._take(question[0], outcome)
            if pace:
                pace.add(1)

        try:
            questions = self._left(parts, nulls)
            each_answer(questions, self._asked, take, parallel=self._num_threads, end=self.end)
        finally:
            self._note_refusals()
            self._lock.flush()
        if parts is None:  # of all clips
            self._lock.refused = {
                name: self.num_refused[name] for name, of in self._columns.items() if of.is_late
            }
        return not self._troubles

    def _left(
        self,
        parts: Sequence[Part] | None,
        nulls: Mapping[str, set[bytes]],
        *,
        is_count: bool = False,
    ) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """Yield the records that lack values, with the names of these columns.

        is_count: read only what is needed to count them.
        """
        by_condition: dict[str | None, list[ClipColumn]] = defaultdict(list)
        for column in self._columns.values():
            by_condition[column.where or self._where].append(column)
        for condition, columns in by_condition.items():
            is_whole = any(column.needs_record for column in columns) and not is_count
            same = {other for column in columns for other in self._same.get(column.name, ())}
            names = [*_READ, *(one.name for one in columns), *(REFUSED.format(one.name) for one in columns)]
            wanted = record_schema_of(self._store, parts).names if is_whole else [*names, *same]
            for table in records_where(self._store, wanted, condition, parts):
                for record in rows_of(table, self._store.url_of(RECORDS)):
                    if lacking := self._lacking_in(record, columns, nulls, is_count=is_count):
                        yield record, lacking

    def _lacking_in(
        self,
        record: Mapping[str, Any],
        columns: Sequence[ClipColumn],
        nulls: Mapping[str, set[bytes]],
        *,
        is_count: bool,
    ) -> list[str]:
        """Return the columns to ask about for a clip; count its other missing columns."""
        lacking = []
        for column in columns:
            name, of_score = column.name, nulls.get(column.name, ())
            if self._again and not column.is_late:
                lacking.append(name)
            elif record.get(name) is not None:
                self._answered.add(name)
            elif is_for_good(record.get(REFUSED.format(name))) and not self._again:
                if not is_count:
                    self.num_left[name] += 1
                    self.num_refused[name] += 1
                    self._refused[record["row_id"], name] = record[REFUSED.format(name)]
            elif (record["row_id"], name) in self._refused:
                self.num_left[name] += not is_count
            elif all(_key(record["row_id"], clip) not in of_score for clip in (record["media_sha256"], "")):
                lacking.append(name)
        return lacking

    def _asked(self, question: tuple[dict[str, Any], list[str]]) -> _Outcome:
        """Ask for columns of a clip, unless one with the same question has an answer."""
        record, names = question
        outcome, asked = _Outcome(), list[ClipColumn]()
        for name in names:
            there = [record.get(other) for other in self._same.get(name, ())]
            if answers := [value for value in there if value is not None]:
                outcome.values[name] = answers[0]
            elif self._ended.is_set() or self._num_faults[name] >= _MAX_FAULTS:
                outcome.later.append(name)
            else:
                asked.append(self._columns[name])
        known, later = (
            with_arguments(record | outcome.values),
            (self._columns.keys() | record.keys()) - self._taken,
        )
        soon = {column.name for column in asked}
        asked = [column for column in asked if not self._waits(column, known, outcome, later - soon)]
        if not asked:
            return outcome
        try:
            frames = self._frames(record, asked)
        except Damaged as error:
            errors = {column.name: str(error) for column in asked}
            return _Outcome(values=outcome.values, later=outcome.later, errors=errors, damage=str(error))
        except StoreError as error:
            if not all(column.is_late for column in asked):
                raise
            self._troubles |= {column.name: error for column in asked}
            outcome.later.extend(column.name for column in asked)
            return outcome
        answered: dict[str | None, CellValue] = {}  # by digest
        for column in asked:
            if column.digest in answered and column.is_late:
                outcome.values[column.name] = answered[column.digest]
                continue
            refused = ((name, why) for name, why in outcome.refused.items() if name in self._answered)
            known |= outcome.values | {REFUSED.format(name): why for name, why in refused}
            if self._waits(column, known, outcome, later):
                continue
            self._ask(column, frames[column.name], known, outcome)
            if column.digest and column.name in outcome.values:
                answered[column.digest] = outcome.values[column.name]
        return outcome

    def _waits(
        self, column: ClipColumn, record: Mapping[str, Any], outcome: _Outcome, later: Collection[str]
    ) -> bool:
        """Whether a question needs a value that a clip may still get. later: columns of such values."""
        for name in column.placeholders if record["frames_sha256"] else ():
            is_refused = is_for_good(record.get(REFUSED.format(name)))
            if record.get(name) is None and name in later and not is_refused:
                self._awaited[column.name] = f"row {record['row_id']}: it has no {name!r} yet"
                outcome.later.append(column.name)
                return True
        return False

    def _ask(
        self, column: ClipColumn, frames: Frames | None, record: Mapping[str, Any], outcome: _Outcome
    ) -> None:
        name = column.name
        if frames is None and not column.is_late:  # sound only
            outcome.values[name] = None
            return
        try:
            value = cell_asked_for(column, frames, record)
            if value is None and column.is_late:
                raise NoValue("there is no answer")
        except Exception as error:  # from a user's function
            if column.is_late and may_answer_later(error):
                self._troubles[name] = error
                self._num_faults[name] += 1 if isinstance(error, OSError) else _MAX_FAULTS
                outcome.later.append(name)
            elif column.is_late:
                outcome.refused[name] = refusal(error)
            else:
                outcome.errors[name] = why_missing(error)
        else:
            outcome.values[name] = value
            self._num_faults[name] = 0
            outcome.answered.append(name)

    def _take(self, record: Mapping[str, Any], outcome: _Outcome) -> None:
        """Write the values of a clip, and count it."""
        messages = outcome.errors | outcome.refused
        self._refused |= {(record["row_id"], name): message for name, message in messages.items()}
        self.num_answers += len(outcome.answered)
        if outcome.damage:
            self.num_damaged += 1
            self.damage = self.damage or outcome.damage
        else:
            self.num_done += 1
            self.filled |= outcome.values.keys() | messages.keys()
            for name, message in messages.items():
                section, before = self._columns[name].section, self.lacking.get(name)
                self.lacking[name] = LackingColumn.and_one(section, before, record["row_id"], message)
        self.num_left.update([*outcome.errors, *outcome.refused, *outcome.later])
        self._answered |= {*outcome.answered}
        of_clip = {name: record[name] for name in ("row_id", "media_sha256")}
        self._refusals += [(of_clip, name, message) for name, message in outcome.refused.items()]
        cells: dict[str, CellValue] = {**outcome.values}
        answered = {REFUSED.format(name) for name, value in outcome.values.items() if value is not None}
        cells |= {name: "" for name in answered if record.get(name)}  # a null would not replace it
        if cells:
            self._lock.put(record, cells)

    def _note_refusals(self) -> None:
        """Write which clips were refused a value."""
        refusals = [one for one in self._refusals if one[1] in self._answered]
        self._refusals = [one for one in self._refusals if one[1] not in self._answered]
        for record, name, message in refusals:
            self._lock.put(record, {REFUSED.format(name): message})
            self.num_refused[name] += is_for_good(message)

    # -- Clips --

    def _frames(self, record: Mapping[str, Any], columns: Sequence[ClipColumn]) -> dict[str, Frames | None]:
        """Return the frames that each column's function needs. Raises Damaged."""
        if record["frames_sha256"] is None:
            return {column.name: None for column in columns}
        # Many threads wait for answers, so each keeps only a few small frames.
        with _DECODING if all(column.thinned for column in columns) else nullcontext():
            frames = clip_frames(self._store, record)
            return {one.name: one.thinned(frames) if one.thinned else frames for one in columns}

    def _null_values(self) -> dict[str, set[bytes]]:
        """Return the clips, by score, for which earlier runs got no result; see `_key`."""
        columns = [column for column in self._columns.values() if not column.is_late]
        paths_by_names: dict[tuple[str, ...], list[str]] = {}
        for part in column_parts(self._store) if columns else ():
            there = columns_of(self._store, part.path)[0]
            same = tuple(
                one.name
                for one in columns
                if one.name in there.names
                and column_digest(there.field(one.name)) == column_digest(one.field)
            )
            paths_by_names.setdefault(same, []).append(part.path)
        nulls: dict[str, set[bytes]] = defaultdict(set)
        for names, paths in paths_by_names.items():
            fields = pa.schema([*_ROW_ID, *OF_CLIP, *(self._fields.field(name) for name in names)])
            for table in read_parts(self._store, paths, fields) if names else ():
                for name in names:
                    lacking = table.filter(pc.is_null(table[name]))
                    clips = zip(lacking["row_id"].to_pylist(), clips_of(lacking), strict=True)
                    nulls[name].update(_key(row_id, clip) for row_id, clip in clips)
        return nulls


def _in_turn(columns: Sequence[ClipColumn]) -> Iterator[ClipColumn]:
    """Yield columns in their order, but after those that their questions name, as far as that is possible."""
    left = {column.name: column for column in columns}
    while left:
        free = (one for one in left.values() if left.keys().isdisjoint({*one.placeholders} - {one.name}))
        yield left.pop(next(free, next(iter(left.values()))).name)


def clip_frames(store: Store, record: Mapping[str, Any]) -> Frames:
    """Return uint8 RGB (T, H, W, 3). Raises Damaged, or StoreError if the store does not answer."""
    from framefleet.api.clips import decode  # imports av

    try:
        file = recorded_clip(record)
    except JobError as error:  # records are not trusted
        raise Damaged(error.problem) from None
    if record["bytes"] > MAX_CLIP_BYTES:
        raise Damaged(f"{file.path}: it has more than {MAX_CLIP_BYTES:,} bytes")
    content = sound_content(store, file)
    if not isinstance(content, bytes):
        raise Damaged(f"{file.path}: {HOW[content]}")
    try:
        return plain_frames(decode(content))
    except StoreError as error:
        raise Damaged(f"{file.path}: {error.problem}") from None


def _key(row_id: str, clip: str) -> bytes:
    """clip: its media_sha256; "": any clip of the row."""
    return bytes.fromhex(row_id + clip)


def each_answer(
    questions: Iterator[_Question],
    ask: Callable[[_Question], _Answer],
    take: Callable[[_Question, _Answer], None],
    *,
    parallel: int,
    end: Callable[[], None],
) -> None:
    """Ask in threads, some questions ahead, and take the answers in the order of the questions.

    Answers that have arrived are taken even after an error of `ask` or `take`, or Ctrl-C. end: cancels the
    requests in flight.
    """
    waiting: deque[tuple[_Question, Future[_Answer]]] = deque()
    with ThreadPoolExecutor(parallel, thread_name_prefix="answers") as threads:
        try:
            with _ended_at_ctrl_c(end):
                while True:
                    for question in islice(questions, 2 * parallel - len(waiting)):
                        waiting.append((question, threads.submit(ask, question)))
                    if not waiting:
                        break
                    answer = waiting[0][1].result()
                    take(waiting.popleft()[0], answer)
        finally:
            with _ended_at_ctrl_c(end):
                begun = [one for one in waiting if not one[1].cancel()]
                for question, future in begun:
                    if not future.exception():
                        take(question, future.result())


@contextmanager
def _ended_at_ctrl_c(end: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        end()
        raise
