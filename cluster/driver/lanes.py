"""The rows of each lane, with its workers: a dispatcher and a pass over the table for each.

Workers of a lane render rows of one model, with framefleet's recipes or with one of a user's: see `LaneKey`.
Most jobs have one lane. Lanes share the fleet, and the memory for rows under way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from framefleet.cluster.dispatch.dispatcher import Dispatcher, GivenUp, LeaseSize
from framefleet.cluster.dispatch.lane_choice import Backlog, move_from, next_lane
from framefleet.cluster.dispatch.lease import LEASE_S, MAX_LEASE_ROWS, Paces
from framefleet.cluster.dispatch.order import Longest, Ranked, TableOrder
from framefleet.cluster.driver.feed import Feed, Pending
from framefleet.cluster.driver.run import Added, LanePlan, Run
from framefleet.cluster.worker.messages import WorkerSetup
from framefleet.pipeline.errors import FleetError, FramefleetError, count_text
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import AS_TABLE, LONGEST, LaneKey
from framefleet.pipeline.rows.sweeps.sweep import RowSource


@dataclass(slots=True, kw_only=True)
class Lane:
    """One lane of a job: its rows, and what its workers need."""

    key: LaneKey
    setup: WorkerSetup
    digest: str  # of the model's files
    dispatcher: Dispatcher
    feed: Feed
    largest: Request | None  # the row that takes most memory, if it should be rehearsed
    row_work: float  # what a row is expected to take, see `Backlog`
    load_s: float | None = None  # seconds that its last worker took to load, if any
    error: FramefleetError | None = None  # why this run gives up its rows
    num_killers: int = 0  # rows in failures/ for which it is given up

    @property
    def num_unleased(self) -> int:
        """How many rows no worker has yet."""
        return self.feed.num_unread + self.dispatcher.num_waiting

    @property
    def may_spoil(self) -> bool:
        """Whether its rows may change what later rows of the process need, as a user's recipe may."""
        return bool(self.key.recipe) and not self.setup.recipes[self.key.recipe].is_batched


class Lanes:
    """All lanes of a job. pending: rows that wait or are leased, by row_id."""

    def __init__(self, run: Run, adopts: Callable[[str, Pending], bool]) -> None:
        self.pending: dict[str, Pending] = {}
        self._run, self._adopts = run, adopts
        self._by_key: dict[LaneKey, Lane] = {}
        self._of_worker: dict[str, Lane] = {}
        self._proven = defaultdict[str, set[str]](set)  # by model: machines that have rendered a row of it
        self._open(run.lanes, run.table)

    def _open(self, plans: Mapping[LaneKey, LanePlan], table: RowSource) -> None:
        for key, plan in plans.items():
            run, paces, engine = self._run, Paces(), plan.setup.model.engine
            max_rows = engine.places if engine else plan.setup.batching.max_rows
            dispatcher = Dispatcher(
                # A copy of an engine's row would be paid too.
                run.retries.model_copy(update={"copies": False}) if engine else run.retries,
                size=LeaseSize(min_rows=max_rows, max_rows=max(max_rows, MAX_LEASE_ROWS), target_s=LEASE_S),
                order=order_of(run.order, paces),
                paces=paces,
                proven=self._proven[key.model],
            )
            self._by_key[key] = Lane(
                key=key,
                setup=plan.setup,
                digest=run.rows.by_model[key.model].identity.model_digest,
                dispatcher=dispatcher,
                feed=Feed(run, dispatcher, self.pending, self._adopts, lane=key, table=table),
                largest=plan.largest,
                row_work=plan.row_work,
            )

    def __getitem__(self, key: LaneKey) -> Lane:
        return self._by_key[key]

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._by_key.values())

    def join(self, worker: str, key: LaneKey, *, load_s: float) -> Lane:
        """A worker of a lane has loaded its model."""
        lane = self._of_worker[worker] = self._by_key[key]
        lane.load_s = load_s
        return lane

    def expect(self, num_workers: Mapping[LaneKey, int]) -> None:
        """Tell each lane how many workers it has, including those that are starting."""
        for key, lane in self._by_key.items():
            lane.dispatcher.expect(num_workers[key])

    def of(self, worker: str) -> Lane:
        """Return a worker's lane; for one that never joined any, a lane in which it has no rows."""
        return self._of_worker.get(worker) or next(iter(self))

    @property
    def are_several(self) -> bool:
        return len(self._by_key) > 1

    @property
    def finished(self) -> bool:
        return not self.left()

    def left(self) -> list[LaneKey]:
        """Return the lanes with rows left, except those that no worker can serve."""
        return [lane.key for lane in self if not (lane.error or lane.dispatcher.finished)]

    def lose(self, key: LaneKey, error: FramefleetError) -> list[GivenUp]:
        """No worker can serve a lane any more: its rows are left for another run.

        Returns the rows that killed its workers on machines that rendered rows of other models.
        """
        lane = self._by_key[key]
        lane.error = error
        sound = set().union(*(hosts for model, hosts in self._proven.items() if model != key.model))
        killers = lane.dispatcher.give_up_killers(sound)
        lane.num_killers = len(killers)
        return killers

    def error(self) -> FramefleetError | None:
        """Return why rows are left, if any are; with several lanes, how many of each."""
        lost = [(lane, lane.error) for lane in self if lane.error]
        if not lost or len(self._run.index.lanes) < 2:
            return lost[0][1] if lost else None
        lines = []
        for lane, error in lost:
            num_killers = lane.num_killers
            num_left = lane.num_unleased + lane.dispatcher.num_leased + num_killers
            killers = f" ({num_killers:,} of them killed workers, see failures/)" if num_killers else ""
            lines.append(f"{lane.key.title}: {count_text(num_left, 'row')} left{killers}: {error.problem}")
        return FleetError("\n".join(lines), lost[0][1].fix)

    def in_hand(self) -> dict[str, int]:
        return {worker: num for lane in self for worker, num in lane.dispatcher.in_hand().items()}

    def fill(self) -> None:
        for lane in self:
            if not lane.error:
                lane.feed.fill()

    def reopen(self) -> None:
        """Rows may have been added, or must be rendered again."""
        for lane in self:
            lane.dispatcher.reopen()

    def take_added(self, num_rows: int, heed: Callable[[], None]) -> Iterator[Added]:
        """Take rows that were added, and yield them: each feed reads its own after all others.

        num_rows: needed now. heed: called often meanwhile; what it raises ends this.
        """
        while added := self._run.more(num_rows, heed):
            num_rows = 0
            new = {key: lane for key, lane in added.lanes.items() if key not in self._by_key}
            for key in new:
                self._run.index.reopen(key)  # all of its rows were added
            self._open(new, added.table)
            for lane in self:
                lane.feed.table = added.table
            self.reopen()
            yield added

    def next_lane(self, num_workers: Mapping[LaneKey, int], but: Collection[LaneKey] = ()) -> LaneKey:
        """Return the lane for a worker that starts. num_workers: of each lane, including those on their way.

        but: lanes to choose only if no others have rows.
        """
        backlogs = self._backlogs(num_workers)
        better = {key: backlog for key, backlog in backlogs.items() if key not in but and backlog.num_rows}
        return next_lane(better or backlogs) if backlogs else next(iter(self._by_key))

    def move_from(
        self, worker: str, num_workers: Mapping[LaneKey, int], but: Collection[LaneKey] = ()
    ) -> LaneKey | None:
        """Return the lane that an idle worker should move to, if there is one; never one of `but`."""
        backlogs = self._backlogs(num_workers)
        others = {key: backlog for key, backlog in backlogs.items() if key not in but}
        return move_from(self.of(worker).key, others)

    def _backlogs(self, num_workers: Mapping[LaneKey, int]) -> dict[LaneKey, Backlog]:
        return {
            key: Backlog(
                num_rows=lane.num_unleased,
                row_s=lane.dispatcher.mean_seconds,
                num_workers=num_workers.get(key, 0),
                load_s=lane.load_s,
                row_work=lane.row_work,
            )
            for key, lane in self._by_key.items()
            if not lane.error
        }


def order_of(order: str, paces: Paces) -> Ranked:
    """Return the order that the job asks for. paces: how long rows of each shape have taken so far."""
    if order == LONGEST:
        return Longest(paces)
    return TableOrder() if order == AS_TABLE else Ranked()
