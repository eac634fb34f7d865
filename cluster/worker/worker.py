"""One worker: rows come in, clips go to the store, reports go out. Knows no Ray; an actor wraps it.

One thread renders; `Writers` encode and upload in parallel with it, so that the GPU does not wait for either.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import FrameType
from typing import TYPE_CHECKING, Any

import framefleet
from framefleet.cluster.worker import messages
from framefleet.cluster.worker.checkpointer import Checkpointer
from framefleet.cluster.worker.queues import Arrived, Inbox, Writers
from framefleet.pipeline.errors import StoreError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.metrics import LOAD, REMEMBERED_SIZES, WORKER_SECONDS
from framefleet.pipeline.model import place_trial
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.clips import Clip, Failure, Outcome
from framefleet.pipeline.outputs.layout import CLAIM
from framefleet.pipeline.outputs.media.av_file import check_encoder
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.audit.verdict import kind_of

if TYPE_CHECKING:
    from framefleet.cluster.worker.engine_rows import EngineRows, LeftRow
    from framefleet.pipeline.render.checkpoints.checkpoint import HalfDone
    from framefleet.pipeline.render.renderer import Renderer

log = logging.getLogger(__name__)

# How long `exchange` waits for news. A driver that wants to stop waits as long.
_POLL_S = 1.0
# After this long, reports say that rows make no progress: long forwards are reported too, and mean nothing.
_STILL_S = 2.0
# Loggers whose warnings the driver repeats even if they are not about a row.
LOGGERS = (
    "framefleet.pipeline.render.checkpoints",
    "framefleet.pipeline.render.rehearsal",
    place_trial.__name__,
)
_CLONE_FS = 0x200  # of `unshare(2)`; `os.CLONE_FS` comes with Python 3.12
_NOTHING: Future[bytes | None] = Future()
_NOTHING.set_result(None)
_MAX_KEPT, _MAX_LENGTH = 64, 1000  # between two reports, about a second


class Remarks(logging.Handler):
    """Keeps what is logged about rows, and warnings of some loggers, until it is taken. From any thread."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._kept: deque[messages.Remark] = deque(maxlen=_MAX_KEPT)

    def listen(self) -> None:
        logger = logging.getLogger(framefleet.__name__)
        logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        row_id = getattr(record, "row_id", "")
        if row_id or (record.levelno >= logging.WARNING and record.name.startswith(LOGGERS)):
            text = public_text(record.getMessage())[:_MAX_LENGTH]
            self._kept.append(messages.Remark(text=text, level=record.levelno, row_id=row_id))

    def take(self) -> tuple[messages.Remark, ...]:
        return tuple(self._kept.popleft() for _ in range(len(self._kept)))


class Notice:
    """Whether this process was sent SIGTERM. Its driver then drains it, before the sender kills it."""

    def __init__(self) -> None:
        self.is_given = False

    def heed(self) -> None:
        """Call from the main thread, where Ray runs the calls of actors."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.is_given = True  # and no more here: other code of this thread may hold any lock


def _check_store(store: Store) -> None:
    """Raise StoreError if this machine may not read the output: the driver's keys may not be known here."""
    try:
        store.exists(CLAIM)
    except StoreError as error:
        if error.kind == "refused":
            error.fix = f"on {socket.gethostname()}, where Ray is started: {error.fix}"
            raise


class Worker:
    """One worker, which has one model for its life."""

    def __init__(self, setup: messages.WorkerSetup) -> None:
        self._setup = setup
        self._news = threading.Condition()  # guards the six below, and the inbox
        self._attempts: dict[str, int] = {}  # of the rows that the renderer or a writer has
        self._rendering: set[str] = set()  # those that the renderer has
        self._untold: defaultdict[str, list[Any]] = defaultdict(list)  # of the next report, by its fields
        self._dropped: set[str] = set()  # rows that the renderer must drop
        self._is_drained = False  # or about to be
        self._broken: BaseException | None = None
        self._writers = Writers(setup, self._report)
        self._checkpointer = self._checkpointer_of(setup)
        # An engine reads itself what it has stored of a row.
        self._inbox = Inbox(
            lambda row_id: _NOTHING if setup.model.engine else self._checkpointer.fetch(row_id), self._tell
        )
        self._remarks = Remarks()
        self._notice = Notice()
        self._loaded = threading.Event()
        self._renderer: Renderer | EngineRows | None = None
        self._render: threading.Thread | None = None
        self._doing = "importing libraries"
        self._started, self._load_s = time.perf_counter(), 0.0
        self._next = setup  # the setup to use as soon as no row is under way
        self._is_renewed = False
        self._counted: Mapping[str, float] = {}  # for an earlier driver
        self._has_rehearsed = False  # of the render thread's, as what follows
        self._has_run = False  # a row

    def start(self) -> messages.Hello | messages.Loading:
        """Load the model, over several calls. Raises what prevents that, or storing clips as asked."""
        if self._render is None:
            check_encoder(self._setup.media)
            self._notice.heed()
            self._remarks.listen()
            self._writers.start()
            # torch's number of threads belongs to the thread that renders: the model is loaded there too.
            self._render = threading.Thread(target=self._run, name="render", daemon=True)
            self._render.start()
        if not self._loaded.wait(_POLL_S):
            return messages.Loading(self._doing)
        if self._broken is not None:
            raise self._broken
        assert self._renderer is not None
        if self._is_renewed:
            self._is_renewed, self._counted = False, {}
            self._counted = self._figures()
        model = self._renderer.model
        return messages.Hello(
            version=framefleet.__version__,
            fingerprint=source_fingerprint(),
            model_digest=model.digest,
            environment=model.environment,
            node=socket.gethostname(),
            pid=os.getpid(),
            room=self._renderer.room_bytes,
            has_run=self._has_run,
        )

    def renew(self, setup: messages.WorkerSetup | None) -> messages.Loading:
        """Drop all rows, and serve another driver as soon as none is under way. `start` then answers again.

        setup: of the same model, except for its weights; None: as before.
        """
        with self._news:
            self._inbox.take_all()
            self._dropped.update(self._rendering)
            if setup is not None and self._broken is None:  # else `start` raises the error
                self._next, self._doing = setup, "preparing for other rows"
                self._loaded.clear()
            self._is_renewed = True
            self._news.notify_all()
        return messages.Loading(self._doing)

    def exchange(
        self,
        assignments: Sequence[messages.Assignment],
        dropped: Collection[str] = (),
        *,
        drain: bool = False,
    ) -> messages.WorkerReport:
        """Take new rows; return what became of earlier ones, as soon as there is news or after a second.

        dropped: rows to stop as soon as possible, with no more reports about them. drain: take no more rows
        from now on, and hand back all rows as soon as possible.
        """
        with self._news:
            self._inbox.drop(dropped)
            self._dropped.update(dropped)
            for assignment in assignments:
                reads = self._renderer.read_ahead(assignment.request) if self._renderer else []
                self._inbox.add(assignment, reads)
            self._is_drained |= drain
            self._news.notify_all()
            self._news.wait_for(lambda: bool(self._untold or self._broken), timeout=_POLL_S)
            if self._broken is not None:
                raise self._broken
            rows: dict[str, Any] = {name: tuple(values) for name, values in self._untold.items()}
            if self._renderer and (still_s := self._renderer.clock.still_s()) >= _STILL_S:
                rows |= {"still_s": still_s, "rendering": tuple(sorted(self._rendering))}
            report = messages.WorkerReport(
                **rows,
                is_leaving=self._notice.is_given,
                remarks=self._remarks.take(),
                figures=self._figures(),
                store_silent_s=self._setup.store.silent_s,
                halt=self._renderer.halt if self._renderer else None,
                **self._writers.slowest(),
            )
            self._untold.clear()
        return report

    def _figures(self) -> dict[str, float]:
        if not self._renderer:
            return {}
        spent = {LOAD: self._load_s, **self._renderer.clock.seconds()}
        own = {WORKER_SECONDS.key(cause): seconds for cause, seconds in spent.items()}
        own[REMEMBERED_SIZES.key()] = self._renderer.num_remembered
        own |= self._renderer.figures()
        own |= self._setup.store.counts.figures()
        return {key: value - self._counted.get(key, 0.0) for key, value in own.items()}

    def _tell(self, *, ended: str = "", **news: Any) -> None:
        """Add values to the next report, each by the name of its field. ended: a row that has left here."""
        with self._news:
            for name, value in news.items():
                self._untold[name].append(value)
            self._attempts.pop(ended, None)
            self._inbox.drop([ended])  # there again only if the driver before had it stored
            self._news.notify_all()

    def _run(self) -> None:
        if sys.platform == "linux":  # as a container may forbid it, nothing else relies on this
            # From here on, it has its own umask and current folder: recipes change them, writers need theirs.
            ctypes.CDLL(None).unshare(_CLONE_FS)
        try:
            model: Model | None = None
            while True:
                setup = self._next
                self._have(setup)
                _check_store(setup.store)
                for section, step in setup.steps.items():
                    self._doing = f"preparing the file step {section}"
                    step.prepare()
                for column in setup.columns:
                    if column.prepare:
                        self._doing = f"preparing the column {column.name}"
                        column.prepare()
                renderer: Renderer | EngineRows
                if setup.model.engine:
                    from framefleet.cluster.worker.engine_rows import EngineRows  # jobs without one need none

                    renderer = EngineRows(setup, self._note_kept)
                else:
                    model = self._load(model)
                    renderer = self._renderer_of(model)
                self._load_s = self._load_s or time.perf_counter() - self._started - renderer.clock.elapsed_s
                with self._news:
                    self._renderer = renderer
                    if self._next is setup:  # else it must take another one by now
                        self._loaded.set()
                while self._take(renderer):
                    self._deliver(renderer.step(), renderer)
                    self._checkpointer.look(renderer)
                if self._is_drained:
                    break
                # No row is under way; this ends what an engine has started.
                self._deliver(renderer.drain(), renderer)
            with self._news:
                for assignment in self._inbox.take_all():
                    self._tell(handed_back=assignment.row_id)
            self._deliver(renderer.drain(), renderer)
            with renderer.clock.spending("upload"), self._news:  # until all is stored
                self._news.wait_for(lambda: not self._attempts)
        except BaseException as error:  # a thread has no caller: handed to the one who asks next
            log.error("the render thread ended\n%s", public_text(traceback.format_exc()))
            with self._news:
                self._broken = error
                self._news.notify_all()
            self._loaded.set()

    def _have(self, setup: messages.WorkerSetup) -> None:
        """Take another driver's setup, once the clips of the one before are stored."""
        if setup is self._setup:
            return
        self._checkpointer.close()
        with self._news:
            self._news.wait_for(lambda: not self._attempts)
            self._untold.clear()
            if setup.store.url_of("") != self._setup.store.url_of(""):  # whose rows may be larger
                self._has_rehearsed = False
            self._setup = self._writers.setup = setup
            self._checkpointer = self._checkpointer_of(setup)

    def _checkpointer_of(self, setup: messages.WorkerSetup) -> Checkpointer:
        every_s, num_threads = setup.checkpoint_every_s, self._writers.num
        return Checkpointer(setup.store, self._note_kept, every_s=every_s, num_threads=num_threads)

    def _load(self, model: Model | None) -> Model:
        """Return the model with the weights that it should have. model: if it was loaded before."""
        setup = self._setup
        if model is None:
            from framefleet.pipeline.model.load import load

            self._doing = "loading the model"
            model = load(setup.model, setup.model_files)
        return setup.update.apply(model, setup.store) if setup.update else model

    def _renderer_of(self, model: Model) -> Renderer:
        # Imported only on workers: the driver, which sends this class, needs no torch.
        from framefleet.pipeline.render.renderer import Renderer

        setup = self._setup
        return Renderer(
            model,
            setup.batching,
            recipes=setup.recipes,
            inputs=setup.inputs,
            embeddings=setup.store if setup.keep_embeddings else None,
            second_models=setup.second_models,
            audit=setup.audit,
            probes=setup.store,
            keep=setup.keep,
        )

    def _deliver(
        self, outcomes: Iterable[Outcome | HalfDone | LeftRow], renderer: Renderer | EngineRows
    ) -> None:
        for audited in renderer.take_audits():
            self._tell(audited=audited)
        for outcome in outcomes:
            self._checkpointer.ended(outcome.row_id)
            with self._news:
                self._rendering.discard(outcome.row_id)
            if isinstance(outcome, Clip):
                attempt = self._attempts[outcome.row_id]
                self._writers.put(outcome, attempt=attempt, spending=renderer.clock.spending)
            elif isinstance(outcome, Failure):
                if outcome.half_done:  # stored first, as the next attempt continues from there
                    held = self._writers.holding(outcome.row_id, "storing")
                    with renderer.clock.spending("store"), held:
                        self._checkpointer.keep_now(outcome.half_done, is_over=False)
                failed = messages.Failed.of(
                    outcome.row_id, outcome.error, outcome.traceback, room=renderer.room_bytes
                )
                self._report(failed)
            else:
                self._checkpointer.keep(outcome, is_over=True)

    def _take(self, renderer: Renderer | EngineRows) -> bool:
        """Give the renderer as many rows as it can take; wait if it has none; return whether to continue."""
        while True:
            self._drop(renderer)
            with self._news:
                if self._is_drained or (self._next is not self._setup and not renderer.num_active):
                    return False
                taken = self._inbox.take(renderer.room, self._attempts)
                self._attempts |= {row.assignment.row_id: row.assignment.attempt for row in taken}
                self._rendering |= {row.assignment.row_id for row in taken}
                if taken or renderer.num_active:
                    break
                with renderer.clock.spending("inputs" if self._inbox else "rows"):
                    self._news.wait()
        if taken and not self._has_rehearsed and (largest := taken[0].assignment.largest):
            renderer.rehearse(largest)
        self._has_rehearsed |= bool(taken)
        for row in taken:
            self._submit(row, renderer)
        return True

    def _drop(self, renderer: Renderer | EngineRows) -> None:
        """Stop rows that ended elsewhere; clips that writers have are stored, but nobody counts them."""
        with self._news:
            dropped = self._dropped & self._rendering
            self._dropped.clear()
        for row_id in dropped:
            renderer.drop(row_id)  # not under the lock: the row's own code may take its time to end
            self._checkpointer.ended(row_id)
            with self._news:
                self._rendering.discard(row_id)
                del self._attempts[row_id]

    def _submit(self, row: Arrived, renderer: Renderer | EngineRows) -> None:
        assignment = row.assignment
        if assignment.is_apart:
            renderer.set_apart(kind_of(assignment.request))
        self._has_run = True
        checkpoint = row.checkpoint.result() if row.checkpoint else None
        self._checkpointer.begun(assignment.row_id)
        renderer.submit(assignment.request, assignment.row_id, checkpoint, is_audited=assignment.is_audited)

    def _report(self, news: messages.StoredRow | messages.Failed) -> None:
        if isinstance(news, messages.StoredRow):
            self._tell(ended=news.record.row_id, rendered=news)
        else:
            self._tell(ended=news.row_id, failed=news)

    def _note_kept(self, row_id: str, is_saved: bool, is_over: bool) -> None:
        if is_saved:
            self._tell(saved=row_id)
        if is_over:
            self._tell(ended=row_id, handed_back=row_id)
