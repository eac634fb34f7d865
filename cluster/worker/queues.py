"""What waits in a worker: rows until their files have been read, and clips on their way to the store.

A store that does not answer only holds up the rows that need it. Threads encode, measure and upload clips
while other rows are rendered.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from queue import Full, Queue
from typing import Any, Literal

from framefleet.cluster.worker.messages import Assignment, Failed, StoredRow, WorkerSetup
from framefleet.pipeline.errors import RowError, message_of
from framefleet.pipeline.metrics import Spending
from framefleet.pipeline.outputs.clips import Clip
from framefleet.pipeline.outputs.columns import ClipColumn, ColumnValues, measure
from framefleet.pipeline.outputs.encode_clip import encode_input, store_clip
from framefleet.pipeline.outputs.file_step import StepInput, checked_values
from framefleet.pipeline.outputs.parts.pending_clips import announce, path_of_intent
from framefleet.pipeline.outputs.parts.records import values_of


@dataclass(slots=True, eq=False)
class Arrived:
    """A row that waits. inputs: its files being read. checkpoint: likewise, once it is about to start."""

    assignment: Assignment
    inputs: list[Future[bytes]]
    checkpoint: Future[bytes | None] | None = None

    @property
    def wants_checkpoint(self) -> bool:
        """Whether it continues from a checkpoint. Rows apart start over: their first half was not apart."""
        return self.assignment.has_checkpoint and not self.assignment.is_apart

    @property
    def is_ready(self) -> bool:
        """Whether all files were read; one that could not be read fails the row when it starts."""
        if self.wants_checkpoint and not (self.checkpoint and self.checkpoint.done()):
            return False
        return all(read.done() for read in self.inputs)


class Inbox:
    """Rows that wait. fetch: begins to read a checkpoint. notify: called in any thread after each read."""

    def __init__(self, fetch: Callable[[str], Future[bytes | None]], notify: Callable[[], None]) -> None:
        self._fetch, self._notify = fetch, notify
        self._rows: list[Arrived] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, assignment: Assignment, inputs: list[Future[bytes]]) -> None:
        self._rows.append(Arrived(assignment, inputs))
        for read in inputs:
            read.add_done_callback(lambda _: self._notify())

    def take(self, room: int, busy: Collection[str] = ()) -> list[Arrived]:
        """Return up to `room` rows that can start. busy: rows whose earlier attempt has not ended."""
        room = max(room, 0)
        free = [row for row in self._rows if row.assignment.row_id not in busy]
        for row in islice(free, room):  # not more at once: a checkpoint may have a gigabyte
            if row.wants_checkpoint and row.checkpoint is None:
                row.checkpoint = self._fetch(row.assignment.row_id)
                row.checkpoint.add_done_callback(lambda _: self._notify())
        ready = [row for row in free if row.is_ready][:room]
        self._rows = [row for row in self._rows if row not in ready]
        return ready

    def drop(self, row_ids: Collection[str]) -> None:
        self._rows = [row for row in self._rows if row.assignment.row_id not in row_ids]

    def take_all(self) -> list[Assignment]:
        """Remove and return all rows that have not started."""
        rows, self._rows = self._rows, []
        return [row.assignment for row in rows]


# Writers that wait cost nothing, and they wait longer for the store than for the CPU.
_MIN_WRITERS = 2
# Clips that may wait for a writer, about 100 MB each at 480p; when full, rendering waits for the store.
_MAX_QUEUED = 4


_LOOK_S = 0.2  # between two looks at what they are doing


@dataclass(slots=True)
class _Held:
    """A clip that a writer has, since when, and what it does with it."""

    row_id: str
    doing: Literal["encoding", "storing"]
    since: float = field(default_factory=time.monotonic)
    measuring: str | None = None  # the section whose column finds its values


class Writers:
    """Threads that encode and store clips, each one at a time."""

    def __init__(self, setup: WorkerSetup, report: Callable[[StoredRow | Failed], None]) -> None:
        """report: called with the outcome of each clip, from any of their threads."""
        self.setup, self._report = setup, report
        self.num = max(_MIN_WRITERS, setup.num_writers)
        self._clips: Queue[tuple[Clip, int]] = Queue(_MAX_QUEUED)
        self._held: tuple[_Held, ...] = ()
        self._lock = threading.Lock()  # guards its changes

    def start(self) -> None:
        for number in range(self.num):
            threading.Thread(target=self._run, name=f"write-{number}", daemon=True).start()

    def put(self, clip: Clip, *, attempt: int, spending: Spending = nullcontext) -> None:
        """Give them a clip; wait while they are behind. spending: entered meanwhile, with the cause."""
        is_taken = False
        while not is_taken:
            num_storing = sum(held.doing == "storing" for held in self._held)
            # The cause is what most of them are doing.
            with spending("upload" if 2 * num_storing > self.num else "media"), suppress(Full):
                self._clips.put((clip, attempt), timeout=_LOOK_S)
                is_taken = True

    def slowest(self) -> dict[str, Any]:
        """Return, for a report, how long a writer has had its clip at most, and what it does with it."""
        oldest = min(self._held, key=lambda held: held.since, default=None)
        if oldest is None:
            return {}
        measuring = (oldest.measuring, oldest.row_id) if oldest.measuring else None
        is_storing, writing_s = oldest.doing == "storing", time.monotonic() - oldest.since
        return {"writing_s": writing_s, "is_storing": is_storing, "measuring": measuring}

    @contextmanager
    def holding(self, row_id: str, doing: Literal["encoding", "storing"]) -> Iterator[_Held]:
        """Count what the block does with a row as the work of a writer."""
        work = _Held(row_id, doing)
        with self._lock:
            self._held = (*self._held, work)
        try:
            yield work
        finally:
            with self._lock:
                self._held = tuple(other for other in self._held if other is not work)

    def _run(self) -> None:
        while True:
            clip, attempt = self._clips.get()
            try:
                with self.holding(clip.row_id, "encoding") as work:
                    news: StoredRow | Failed = self._stored(clip, attempt, work)
            except BaseException as error:  # the row's own failure, or the store's: the driver decides
                step, failure = self._step_raising(error), error
                if not isinstance(failure, Exception):  # such as SystemExit, which ends a thread silently
                    problem = f"its code raised {type(error).__name__}: {message_of(error)}"
                    failure = RowError(problem, "have it raise an Exception")
                news = Failed.of(clip.row_id, failure, traceback.format_exc(), step=step)
            self._report(news)

    def _step_raising(self, error: BaseException) -> str:
        """Return the section of the file step whose method an error comes from; "" for none."""
        owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
        steps = self.setup.steps.items()
        return next((section for section, step in steps if any(step is owner for owner in owners)), "")

    def _stored(self, clip: Clip, attempt: int, held: _Held) -> StoredRow:
        store = self.setup.store
        step_input = StepInput(clip=clip, media=self.setup.media, read=self.setup.inputs.read)
        encoded = encode_input(step_input, self.setup.steps.values())
        encoded = replace(encoded, record=replace(encoded.record, attempt=attempt))
        values = checked_values(self.setup.steps, step_input.values)

        def begin(column: ClipColumn) -> None:
            held.measuring = column.section

        added = ColumnValues(values=values)
        if self.setup.columns:
            record_values = values_of(encoded.record)
            measured = measure(self.setup.columns, clip.frames, record_values, begin=begin)
            added = replace(measured, values={**values, **measured.values})
        held.measuring = None
        held.doing = "storing"
        announce(store, encoded.record, was_batched=clip.was_batched, values=added.values)
        record = store_clip(store, encoded)
        if not store.exists(path_of_intent(record)):  # this process stood still, and another driver swept it
            announce(store, encoded.record, was_batched=clip.was_batched, values=added.values)
        return StoredRow(record=record, was_batched=clip.was_batched, added=added)
