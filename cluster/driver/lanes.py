"""The rows of each model, with the workers that have it: a dispatcher and a pass over the table for each.

A job of one model has one lane, or two that share a pass, if other workers encode its text. Lanes share the
fleet, and what is remembered of rows under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from framefleet.cluster.dispatch.dispatcher import Dispatcher, GivenUp, LeaseSize
from framefleet.cluster.dispatch.lease import Paces
from framefleet.cluster.dispatch.model_choice import Backlog, move_from, next_model
from framefleet.cluster.driver.encoding import ENCODER_POOL, EncodeFirst
from framefleet.cluster.driver.feed import Feed, Pending
from framefleet.cluster.driver.ranks import order_of
from framefleet.cluster.driver.work import Added, Work
from framefleet.cluster.worker.messages import Failed, WorkerSetup
from framefleet.pipeline.request import Request


@dataclass(slots=True, kw_only=True)
class Lane:
    """The rows of one model. digest: of its files. load_s: seconds that its last worker took to load, if any.

    largest: the row that takes most memory, if it is to be rehearsed. row_work: see `Backlog`.
    """

    setup: WorkerSetup
    digest: str
    dispatcher: Dispatcher
    feed: Feed
    largest: Request | None
    row_work: float
    load_s: float | None = None

    @property
    def encodes(self) -> bool:
        """Whether its workers encode the text of rows, and do nothing else."""
        return self.setup.stage == "encode"


class Lanes:
    """All models of a job. pending: the rows that wait or are leased, by row_id."""

    def __init__(
        self, work: Work, adopts: Callable[[str, Pending], bool], on_added: Callable[[Added], None]
    ) -> None:
        self.pending: dict[str, Pending] = {}
        self._on_added, self._num_encoders = on_added, work.num_encoders
        models = [name for name in work.setups if name != ENCODER_POOL]
        paces = {name: Paces() for name in models}
        # Text is encoded in the order in which it is rendered.
        dispatchers = {
            name: self._dispatcher(name, work, paces.get(name, paces[models[0]])) for name in work.setups
        }
        self._encoding = (
            EncodeFirst(dispatchers[ENCODER_POOL], dispatchers[models[0]], work.faults)
            if ENCODER_POOL in dispatchers
            else None
        )
        self._feeds = {
            name: Feed(
                work,
                self._encoding or dispatchers[name],
                self.pending,
                adopts,
                self._added,
                model=next(iter(work.rows.numbers_of([name])), None),
            )
            for name in models
        }
        self._by_model = {name: self._lane(name, work, one) for name, one in dispatchers.items()}
        self._of_worker: dict[str, Lane] = {}

    def _dispatcher(self, name: str, work: Work, ranked_by: Paces) -> Dispatcher:
        size = LeaseSize.of_forwards(work.setups[name].batching.max_rows)
        order = order_of(work.order, ranked_by)
        if name == ENCODER_POOL:
            faults = work.faults.model_copy(update={"copies": False})
            return Dispatcher(faults, size=size, order=order)
        return Dispatcher(work.faults, size=size, order=order, paces=ranked_by)

    def _lane(self, name: str, work: Work, dispatcher: Dispatcher) -> Lane:
        model = next(iter(self._feeds)) if name == ENCODER_POOL else name
        return Lane(
            setup=work.setups[name],
            digest=work.rows.by_model[model].identity.model_digest,
            dispatcher=dispatcher,
            feed=self._feeds[model],
            largest=work.largest.get(name),
            row_work=work.row_work.get(model) or 1.0,
        )

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._by_model.values())

    def join(self, worker: str, model: str, *, load_s: float) -> Lane:
        """A worker has loaded a model."""
        lane = self._of_worker[worker] = self._by_model[model]
        lane.load_s = load_s
        return lane

    def of(self, worker: str) -> Lane:
        """Return the lane of a worker; of one that never joined any, in which it has no rows."""
        return self._of_worker.get(worker) or next(iter(self))

    @property
    def are_several(self) -> bool:
        return len(self._by_model) > 1

    @property
    def finished(self) -> bool:
        return all(lane.dispatcher.finished for lane in self)

    def in_hand(self) -> dict[str, int]:
        """Return how many rows each worker has, of those that have any."""
        return {worker: num for lane in self for worker, num in lane.dispatcher.in_hand().items()}

    def fill(self) -> None:
        """Take as many rows from the table as there is room for."""
        for feed in self._feeds.values():
            feed.regroup()
            feed.fill()
        if self._encoding:
            self._encoding.settle()

    def encoded(self, worker: str, row_id: str, now: float) -> bool:
        """Let workers that denoise have a row whose text is encoded; return whether that is new."""
        return self._encoding is not None and self._encoding.encoded(worker, row_id, now)

    def came_back(self, worker: str, failed: Failed) -> GivenUp | None:
        """A row's embeddings were not found: see `EncodeFirst.came_back`."""
        assert self._encoding is not None
        return self._encoding.came_back(worker, failed)

    def reopen(self) -> None:
        """Rows may have been added, or are to be rendered again."""
        for lane in self:
            lane.dispatcher.reopen()

    def _added(self, added: Added) -> None:
        """Rows of any model were added to the table: each feed looks for its own."""
        for feed in self._feeds.values():
            feed.table = added.table
        self.reopen()
        self._on_added(added)

    def close(self) -> None:
        for feed in self._feeds.values():
            feed.close()

    def next_model(self, num_workers: Mapping[str, int]) -> str:
        """Return the model of a worker that starts. num_workers: those of each model, also on their way.

        As long as there is text to encode, that is done by as many workers as the job says.
        """
        backlogs = self._backlogs(num_workers)
        encoders = backlogs.pop(ENCODER_POOL, None)
        if encoders and encoders.num_rows and encoders.num_workers < self._num_encoders:
            return ENCODER_POOL
        return next_model(backlogs)

    def move_from(self, worker: str, num_workers: Mapping[str, int]) -> str | None:
        """Return the model for which an idle worker should give up its own, if there is one."""
        own = next(name for name, lane in self._by_model.items() if lane is self.of(worker))
        backlogs = self._backlogs(num_workers)
        if own != ENCODER_POOL and num_workers.get(ENCODER_POOL, 0) >= self._num_encoders:
            backlogs.pop(ENCODER_POOL, None)
        return move_from(own, backlogs)

    def _num_rows(self, name: str, num_workers: Mapping[str, int]) -> int:
        """Return how many rows no worker of a lane has, but could have."""
        lane = self._by_model[name]
        unread = lane.feed.num_unread
        if self._encoding and not lane.encodes:
            unread = 0  # their text is to be encoded first
        elif self._encoding and not any(num for model, num in num_workers.items() if model != ENCODER_POOL):
            unread = min(unread, self._encoding.room)  # until somebody denoises what waits for that
        return unread + lane.dispatcher.counts.waiting

    def _backlogs(self, num_workers: Mapping[str, int]) -> dict[str, Backlog]:
        return {
            name: Backlog(
                num_rows=self._num_rows(name, num_workers),
                row_s=lane.dispatcher.mean_seconds,
                num_workers=num_workers.get(name, 0),
                load_s=lane.load_s,
                row_work=lane.row_work,
            )
            for name, lane in self._by_model.items()
        }
