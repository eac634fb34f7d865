"""No order of events loses a row, leases one twice at once but as a copy, or passes one over too often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from framefleet.cluster.dispatch.dispatcher import Dispatcher, GivenUp, Lease, LeaseSize, Row
from framefleet.cluster.dispatch.faults import MOST_EXCUSED, FaultPolicy
from framefleet.cluster.dispatch.order import Ranked, TableOrder
from tests.long import examples

ATTEMPTS, MAX_DEATHS, LEASES_PER_WORKER, MAX_ROWS, WINDOW = 3, 3, 2, 4, 12


@dataclass(slots=True)
class Known:
    """What the test itself knows about a row."""

    shape: str
    failed_on: list[str] = field(default_factory=list)
    strikes: int = 0
    deaths: int = 0  # those on machines that had done a row
    tried: set[str] = field(default_factory=set)  # where it failed, or its worker did
    saved_on: str = ""  # the worker that saved it last
    num_excused: int = 0
    leases: dict[str, Lease] = field(default_factory=dict)  # by the worker that has it; the second has a copy
    end: str = ""  # "done" or "given up"


class EveryOrderOfEvents(RuleBasedStateMachine):
    order: Callable[[], Ranked] = TableOrder

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher(
            FaultPolicy(attempts=ATTEMPTS, worker_deaths=MAX_DEATHS),
            window=WINDOW,
            leases_per_worker=LEASES_PER_WORKER,
            size=LeaseSize(min_rows=2, max_rows=MAX_ROWS, target_s=10.0),
            order=type(self).order(),
        )
        self.rows: dict[str, Known] = {}
        self.live: dict[str, list[Lease]] = {}  # worker: its leases so far
        self.places: dict[str, set[str]] = {}
        self.gone: list[str] = []
        self.proven: set[str] = set()  # machines that have done a row
        self.now = 0.0
        self.closed = False

    # Events

    @rule(shapes=st.lists(st.sampled_from("xyz"), max_size=8))
    def add(self, shapes: list[str]) -> None:
        for shape in shapes:
            if not self.dispatcher.room:
                return
            row_id = str(len(self.rows))
            self.rows[row_id] = Known(shape)
            self.dispatcher.add(Row(row_id=row_id, shape=shape, rank=int(row_id) * 7 % 5))

    @rule()
    def close(self) -> None:
        self.closed = True
        self.dispatcher.close()

    @precondition(lambda self: len(self.live) < 4)
    @rule()
    def join(self) -> None:
        number = len(self.live) + len(self.gone)
        worker, at = f"w{number}", (self.machine(f"w{number}"), f"slot {number % 3}")
        self.live[worker] = []
        self.places[worker] = {*at, worker}
        self.dispatcher.join(worker, at=at)

    @precondition(lambda self: self.live)
    @rule(choice=st.data(), seconds=st.floats(0, 20))
    def lease(self, choice: st.DataObject, seconds: float) -> None:
        self.now += seconds
        self.lease_to(choice.draw(st.sampled_from(sorted(self.live))))

    @precondition(lambda self: self.held())
    @rule(choice=st.data(), seconds=st.floats(0, 20))
    def done(self, choice: st.DataObject, seconds: float) -> None:
        self.now += seconds
        row_id = choice.draw(st.sampled_from(self.held()))
        self.report_done(row_id, choice.draw(st.sampled_from(sorted(self.rows[row_id].leases))))

    @precondition(lambda self: self.held())
    @rule(choice=st.data(), retry=st.booleans())
    def failed(self, choice: st.DataObject, retry: bool) -> None:
        row_id = choice.draw(st.sampled_from(self.held()))
        row = self.rows[row_id]
        worker = choice.draw(st.sampled_from(sorted(row.leases)))
        del row.leases[worker]
        row.failed_on.append(worker)
        row.tried.add(worker)
        given_up = self.dispatcher.failed(worker, row_id, f"bad on {worker}", retry=retry)
        assert (given_up is not None) == (not retry or len(row.failed_on) == ATTEMPTS)
        self.expect_given_up([given_up] if given_up else [])

    @precondition(lambda self: self.live)
    @rule(choice=st.data())
    def put_back(self, choice: st.DataObject) -> None:
        worker = choice.draw(st.sampled_from(sorted(self.live)))
        row_ids = choice.draw(st.sets(st.sampled_from(self.held(worker) or ["none"])))
        self.dispatcher.put_back(worker, row_ids)
        for row_id in row_ids & self.rows.keys():
            self.rows[row_id].leases.pop(worker, None)

    @precondition(lambda self: self.held())
    @rule(choice=st.data())
    def saved(self, choice: st.DataObject) -> None:
        row_id = choice.draw(st.sampled_from(self.held()))
        self.rows[row_id].saved_on = choice.draw(st.sampled_from(sorted(self.rows[row_id].leases)))
        self.dispatcher.saved(self.rows[row_id].saved_on, row_id)

    @precondition(lambda self: self.held())
    @rule(choice=st.data())
    def doubted(self, choice: st.DataObject) -> None:
        """A row fails as on a broken machine; in most cases its worker is ended for it."""
        row_id = choice.draw(st.sampled_from(self.held()))
        worker = choice.draw(st.sampled_from(sorted(self.rows[row_id].leases)))
        assert not self.dispatcher.is_rows_own(worker, row_id) or self.machine(worker) in self.proven

    @precondition(lambda self: self.live)
    @rule(choice=st.data())
    def lost(self, choice: st.DataObject) -> None:
        worker = choice.draw(st.sampled_from(sorted(self.live)))
        row_ids = self.held(worker)
        some = st.lists(st.sampled_from(row_ids), unique=True) if row_ids else st.just([])
        suspects = choice.draw(st.none() | some)
        for row_id in row_ids:
            del self.rows[row_id].leases[worker]
            self.rows[row_id].tried |= self.places[worker]
        named = row_ids if suspects is None else suspects
        is_proven, struck = self.machine(worker) in self.proven, []
        for row_id in row_ids:
            row = self.rows[row_id]
            may_be_excused = row_id not in named or row.saved_on == worker
            row.num_excused += may_be_excused
            if not may_be_excused or row.num_excused > MOST_EXCUSED:
                struck.append(row_id)
                row.strikes += 1
                row.deaths += is_proven
        del self.live[worker]
        self.gone.append(worker)
        given_up = self.dispatcher.lost(worker, suspects=suspects)
        is_alone = is_proven and len(named or row_ids) == 1
        guilty = [row_id for row_id in struck if is_alone and self.rows[row_id].deaths >= MAX_DEATHS]
        assert [gone.row.row_id for gone in given_up] == guilty
        self.expect_given_up(given_up)

    @precondition(lambda self: len(self.live) > 1 and self.held())
    @rule(choice=st.data(), seconds=st.floats(1, 100))
    def come_to_the_end(self, choice: st.DataObject, seconds: float) -> None:
        """No row waits any more, and one worker has done all of its own: it may get copies."""
        self.close()
        while any([self.lease_to(worker) for worker in sorted(self.live)]):
            pass
        idle = choice.draw(st.sampled_from(sorted(self.live)))
        for row_id in self.held(idle):
            self.now += 5.0
            self.report_done(row_id, idle)
        self.now += seconds
        self.lease_to(idle)

    @precondition(lambda self: self.rows)
    @rule(choice=st.data(), retry=st.booleans())
    def stale_reports(self, choice: st.DataObject, retry: bool) -> None:
        row_id = choice.draw(st.sampled_from(sorted(self.rows)))
        worker = choice.draw(st.sampled_from([*self.live, *self.gone, "never here"]))
        if worker not in self.rows[row_id].leases:
            assert self.dispatcher.done(worker, row_id, self.now) is False
            assert self.dispatcher.failed(worker, row_id, "late", retry=retry) is None
            self.dispatcher.put_back(worker, [row_id])
        if worker not in self.live:
            assert self.dispatcher.lost(worker) == []
            assert self.dispatcher.lease(worker, self.now) is None

    # What must hold

    @invariant()
    def counts_agree(self) -> None:
        rows = self.rows.values()
        assert self.dispatcher.num_waiting == sum(1 for row in rows if not row.end and not row.leases)
        assert self.dispatcher.num_leased == sum(1 for row in rows if row.leases)
        assert self.dispatcher.finished == (self.closed and all(row.end for row in rows))

    def teardown(self) -> None:
        """Every row ends as long as workers keep coming."""
        self.close()
        while not self.dispatcher.finished:
            if not self.live:
                self.join()
            moved = [self.lease_to(worker) for worker in sorted(self.live)]
            held = self.held()
            for row_id in held:
                self.report_done(row_id, min(self.rows[row_id].leases))
            assert held or any(moved), "rows wait, workers ask, and nothing moves"
            self.counts_agree()

    @staticmethod
    def machine(worker: str) -> str:
        return f"machine {int(worker[1:]) % 2}"

    def held(self, worker: str | None = None) -> list[str]:
        return [
            row_id for row_id, row in self.rows.items() if (worker in row.leases if worker else row.leases)
        ]

    def lease_to(self, worker: str) -> bool:
        held = self.held(worker)
        lease = self.dispatcher.lease(worker, self.now)
        if lease is None:
            return False
        open_leases = [
            old
            for old in self.live[worker]
            if any(self.rows[row_id].leases[worker] is old for row_id in held)
        ]
        assert len(open_leases) < LEASES_PER_WORKER
        assert not any(old.alone for old in open_leases)
        assert 1 <= len(lease.rows) <= (1 if lease.alone else MAX_ROWS)
        assert not (lease.alone and held)
        assert len({leased.row.shape for leased in lease.rows}) == 1
        for leased in lease.rows:
            row = self.rows[leased.row.row_id]
            assert not row.end
            assert leased.attempt == 1 + len(row.failed_on) + row.deaths
            if row.leases:
                assert self.closed and not held and len(row.leases) == 1 and not row.strikes
            else:
                proven = [live for live in self.live if self.machine(live) in self.proven]
                has_suspects = any(r.strikes >= 2 and not r.end and not r.leases for r in self.rows.values())
                proves = has_suspects and not proven  # once it is done, its machine can judge suspects
                assert lease.alone == (row.strikes >= 2 or proves)
                rivals = proven if row.strikes >= 2 and proven else self.live
                away = {live: len(self.places[live] - row.tried) for live in rivals}
                assert away[worker] == max(away.values())
            row.leases[worker] = lease
        self.live[worker] = [*open_leases, lease]
        return True

    def report_done(self, row_id: str, worker: str) -> None:
        row = self.rows[row_id]
        assert self.dispatcher.done(worker, row_id, self.now) is True
        self.proven.add(self.machine(worker))
        self.end(row, row_id, "done", by=worker)

    def end(self, row: Known, row_id: str, how: str, *, by: str | None = None) -> None:
        """The row has ended: who else has it is to leave it."""
        for worker in row.leases.keys() - {by}:
            assert row_id in self.dispatcher.take_dropped(worker)
        row.leases.clear()
        row.end = how

    def expect_given_up(self, given_up: list[GivenUp]) -> None:
        for gone in given_up:
            row = self.rows[gone.row.row_id]
            assert not row.end
            assert [worker for worker, _ in gone.errors] == row.failed_on
            assert gone.attempts == len(row.failed_on) + row.deaths
            self.end(row, gone.row.row_id, "given up")


class EveryOrderOfEventsRanked(EveryOrderOfEvents):
    order = Ranked


TestEveryOrderOfEvents = EveryOrderOfEvents.TestCase
TestEveryOrderOfEventsRanked = EveryOrderOfEventsRanked.TestCase
for case in (TestEveryOrderOfEvents, TestEveryOrderOfEventsRanked):
    case.settings = settings(max_examples=examples(150), stateful_step_count=60, deadline=None)
del case  # else it is a test, too


@settings(max_examples=examples(60), deadline=None)
@given(
    shapes=st.lists(st.sampled_from("aaaaaaaabbbc"), min_size=1, max_size=200),
    asking=st.lists(st.integers(0, 2), min_size=1, max_size=40),
    max_rows=st.integers(1, 4),
)
def test_the_oldest_row_is_passed_over_at_most_once_per_lease_slot_of_the_fleet(
    shapes: list[str], asking: list[int], max_rows: int
) -> None:
    dispatcher = Dispatcher(size=LeaseSize(min_rows=1, max_rows=max_rows, target_s=1e9))
    for worker in "012":
        dispatcher.join(worker)
    for number, shape in enumerate(shapes):
        dispatcher.add(Row(row_id=str(number), shape=shape))
    waiting, passed_over, turn = set(range(len(shapes))), 0, 0
    while waiting:
        worker = str(asking[turn % len(asking)])
        turn += 1
        lease = dispatcher.lease(worker, 0.0)
        assert lease is not None
        oldest = min(waiting)
        for leased in lease.rows:
            waiting.remove(int(leased.row.row_id))
            dispatcher.done(worker, leased.row.row_id, 0.0)
        passed_over = passed_over + 1 if oldest in waiting else 0
        assert passed_over <= 3 * LEASES_PER_WORKER
