"""No order of events loses a row between workers that encode and those that denoise, or takes it twice."""

from __future__ import annotations

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from framefleet.cluster.dispatch.dispatcher import Dispatcher, GivenUp, Row
from framefleet.cluster.dispatch.fault_policy import FaultPolicy
from framefleet.cluster.driver.feed import EncodeFirst
from framefleet.cluster.worker.messages import Failed
from tests.long import examples

WINDOW, ATTEMPTS = 6, 3
FAULTS = FaultPolicy(attempts=ATTEMPTS, worker_deaths=2)


class TwoStages(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.first = Dispatcher(FAULTS.model_copy(update={"copies": False}), window=WINDOW)
        self.then = Dispatcher(FAULTS, window=WINDOW)
        self.stages = EncodeFirst(self.first, self.then, FAULTS)
        self.num_rows = self.num_workers = 0
        self.ends: dict[str, str] = {}
        self.num_returns: dict[str, int] = {}
        self.workers: dict[str, Dispatcher] = {}
        self.now = 0.0
        for dispatcher in (self.first, self.then):
            self.start(dispatcher)

    def start(self, dispatcher: Dispatcher) -> None:
        worker = f"w{self.num_workers}"
        self.num_workers += 1
        self.workers[worker] = dispatcher
        dispatcher.join(worker, at=(f"m{self.num_workers}",))

    def end(self, row_id: str, how: str) -> None:
        assert row_id not in self.ends
        self.ends[row_id] = how

    def given_up(self, found: GivenUp | None) -> None:
        if found:
            self.end(found.row.row_id, "given up")

    def holding(self, dispatcher: Dispatcher) -> list[tuple[str, str]]:
        found = ((worker, own) for worker, own in self.workers.items() if own is dispatcher)
        return [(worker, row_id) for worker, own in found for row_id in own.rows_of(worker)]

    @rule(count=st.integers(1, 9))
    def add(self, count: int) -> None:
        for _ in range(min(count, self.stages.room)):
            self.stages.add(Row(row_id=f"r{self.num_rows}", shape="abc"[self.num_rows % 3]))
            self.num_rows += 1

    @rule(choice=st.data())
    def lease(self, choice: st.DataObject) -> None:
        self.now += 1
        worker = choice.draw(st.sampled_from(sorted(self.workers)))
        while self.workers[worker].lease(worker, self.now):
            """It takes all that it may have."""

    @precondition(lambda self: self.holding(self.first))
    @rule(choice=st.data())
    def encode(self, choice: st.DataObject) -> None:
        worker, row_id = choice.draw(st.sampled_from(self.holding(self.first)))
        assert self.stages.encoded(worker, row_id, self.now)
        assert not self.stages.encoded(worker, row_id, self.now)  # told twice

    @precondition(lambda self: self.holding(self.then))
    @rule(choice=st.data())
    def come_back(self, choice: st.DataObject) -> None:
        worker, row_id = choice.draw(st.sampled_from(self.holding(self.then)))
        failed = Failed(row_id=row_id, error_type="NotEncoded", message="", traceback="", blame="encoding")
        self.num_returns[row_id] = self.num_returns.get(row_id, 0) + 1
        found = self.stages.came_back(worker, failed)
        assert bool(found) == (self.num_returns[row_id] >= ATTEMPTS)
        self.given_up(found)

    @precondition(lambda self: self.holding(self.then))
    @rule(choice=st.data())
    def render(self, choice: st.DataObject) -> None:
        worker, row_id = choice.draw(st.sampled_from(self.holding(self.then)))
        assert self.then.done(worker, row_id, self.now)
        self.end(row_id, "done")

    @rule(choice=st.data())
    def die(self, choice: st.DataObject) -> None:
        worker = choice.draw(st.sampled_from(sorted(self.workers)))
        dispatcher = self.workers.pop(worker)
        for found in dispatcher.lost(worker):
            self.given_up(found)
        self.start(dispatcher)

    @invariant()
    def each_row_is_in_one_place(self) -> None:
        first, then = self.first.counts, self.then.counts
        held = first.waiting + first.leased + then.waiting + then.leased
        assert held + len(self.ends) == self.num_rows
        assert self.stages.room + first.waiting + first.leased <= WINDOW or not self.stages.room

    def teardown(self) -> None:
        """Whatever happened, all rows end once nothing goes wrong any more, and then both are finished."""
        for _ in range(5 * self.num_rows + 5):  # where it takes longer, rows wait for ever
            self.stages.close()
            self.stages.settle()
            for worker, dispatcher in self.workers.items():
                dispatcher.lease(worker, self.now)
                for row_id in dispatcher.rows_of(worker):
                    if dispatcher is self.first:
                        self.stages.encoded(worker, row_id, self.now)
                    else:
                        self.then.done(worker, row_id, self.now)
                        self.end(row_id, "done")
        assert self.then.finished and len(self.ends) == self.num_rows


TestTwoStages = TwoStages.TestCase
TestTwoStages.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
