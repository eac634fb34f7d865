"""The rows of each model, with the workers that have it: a dispatcher and a pass over the table for each.

A job of one model has one lane. Lanes share the fleet, and what is remembered of rows under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from framefleet.cluster.dispatch.dispatcher import Dispatcher, LeaseSize
from framefleet.cluster.dispatch.lease import Paces
from framefleet.cluster.dispatch.model_choice import Backlog, move_from, next_model
from framefleet.cluster.driver.feed import Feed, Pending
from framefleet.cluster.driver.ranks import order_of
from framefleet.cluster.driver.work import Added, Work
from framefleet.cluster.worker.messages import WorkerSetup
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


class Lanes:
    """All models of a job. pending: the rows that wait or are leased, by row_id."""

    def __init__(
        self, work: Work, adopts: Callable[[str, Pending], bool], on_added: Callable[[Added], None]
    ) -> None:
        self.pending: dict[str, Pending] = {}
        self._on_added = on_added
        self._by_model = {name: self._lane(name, work, adopts) for name in work.setups}
        self._of_worker: dict[str, Lane] = {}

    def _lane(self, name: str, work: Work, adopts: Callable[[str, Pending], bool]) -> Lane:
        setup = work.setups[name]
        size = LeaseSize.of_forwards(setup.batching.max_rows)
        paces = Paces()
        dispatcher = Dispatcher(work.faults, size=size, order=order_of(work.order, paces), paces=paces)
        number = next(iter(work.rows.numbers_of([name])), None)
        feed = Feed(work, dispatcher, self.pending, adopts, self._added, model=number)
        digest = work.rows.by_model[name].identity.model_digest
        return Lane(
            setup=setup,
            digest=digest,
            dispatcher=dispatcher,
            feed=feed,
            largest=work.largest.get(name),
            row_work=work.row_work.get(name) or 1.0,
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
        for lane in self:
            lane.feed.regroup()
            lane.feed.fill()

    def reopen(self) -> None:
        """Rows may have been added, or are to be rendered again."""
        for lane in self:
            lane.dispatcher.reopen()

    def _added(self, added: Added) -> None:
        """Rows of any model were added to the table: each feed looks for its own."""
        for lane in self:
            lane.feed.table = added.table
        self.reopen()
        self._on_added(added)

    def close(self) -> None:
        for lane in self:
            lane.feed.close()

    def next_model(self, num_workers: Mapping[str, int]) -> str:
        """Return the model of a worker that starts. num_workers: those of each model, also on their way."""
        return next_model(self._backlogs(num_workers))

    def move_from(self, worker: str, num_workers: Mapping[str, int]) -> str | None:
        """Return the model for which an idle worker should give up its own, if there is one."""
        own = next(name for name, lane in self._by_model.items() if lane is self.of(worker))
        return move_from(own, self._backlogs(num_workers))

    def _backlogs(self, num_workers: Mapping[str, int]) -> dict[str, Backlog]:
        return {
            name: Backlog(
                num_rows=lane.feed.num_unread + lane.dispatcher.counts.waiting,
                row_s=lane.dispatcher.mean_seconds,
                num_workers=num_workers.get(name, 0),
                load_s=lane.load_s,
                row_work=lane.row_work,
            )
            for name, lane in self._by_model.items()
        }
