"""Rows that run out of memory on their own: by the driver's own rules, the place is blamed first."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from framefleet.cluster.dispatch.dispatcher import Dispatcher, LeaseSize, Row
from framefleet.cluster.dispatch.faults import FaultPolicy, Hosts
from framefleet.cluster.dispatch.order import SLACK_BYTES
from framefleet.cluster.fleet.losses import cause_to_end
from framefleet.cluster.worker.messages import Failed, WorkerReport
from framefleet.pipeline.errors import OutOfMemory
from tests.unit.dispatching import lease

GB = 10**9
GOOD_S, BAD_S, LOAD_S = 600.0, 5.0, 60.0


@dataclass
class Simulated:
    """A fleet that renders a table. room: of each worker, in GB. needs: of a row, by its number."""

    room: Mapping[str, float]
    needs: Callable[[int], float]
    num_rows: int = 200
    done: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)  # by worker

    def __post_init__(self) -> None:
        self.faults = FaultPolicy()
        self.hosts = Hosts(self.faults)
        self.dispatcher = Dispatcher(self.faults, size=LeaseSize(min_rows=8, max_rows=64, target_s=30.0))
        for number in range(self.num_rows):
            need = self.needs(number)
            self.dispatcher.add(Row(row_id=str(number), shape=f"{need:g}", payload=need))
        self.dispatcher.close()
        self.hands: dict[str, list[Row]] = {}
        self.events = [(0.0, 0, name) for name in self.room]  # when a process is ready, or a row ends
        self.process = dict.fromkeys(self.room, 0)
        self.run()

    def run(self) -> None:
        while self.events and not self.dispatcher.finished:
            now, number, name = heapq.heappop(self.events)
            worker = f"{name}.{number}"
            if number != self.process[name]:
                continue
            if worker not in self.hands:
                self.hands[worker] = []
                self.hosts.placed(name, "machine", "machine")
                room = round(self.room[name] * GB)
                self.dispatcher.join(worker, at=("machine", name), room=room)
            elif self.hands[worker]:
                self.end_row(name, worker, self.hands[worker].pop(0), now)
            if number == self.process[name]:
                self.go_on(name, worker, now)

    def go_on(self, name: str, worker: str, now: float) -> None:
        while (granted := self.dispatcher.lease(worker, now)) is not None:
            self.hands[worker] += [leased.row for leased in granted.rows]
        takes_s = 1.0  # until it asks again
        if self.hands[worker]:
            fits = self.hands[worker][0].payload <= self.room[name]  # type: ignore[operator]
            takes_s = GOOD_S if fits else BAD_S
        heapq.heappush(self.events, (now + takes_s, self.process[name], name))

    def end_row(self, name: str, worker: str, row: Row, now: float) -> None:
        if row.payload <= self.room[name]:  # type: ignore[operator]
            self.done += [row.row_id] * self.dispatcher.done(worker, row.row_id, now)
            self.hosts.done(name)
            return
        self.failures[name] = self.failures.get(name, 0) + 1
        room = round(self.room[name] * GB)
        told = Failed.of(row.row_id, OutOfMemory("does not fit"), "", room=room)
        given_up = self.dispatcher.ran_out(worker, row.row_id, told, room=room)
        if given_up:
            self.given_up.append(row.row_id)
            self.hosts.cleared(name)
        cause = cause_to_end(
            WorkerReport(failed=() if given_up else (told,)),
            self.faults,
            is_cut_off=False,
            longest_still_s=1800,
        )
        assert (cause is None) == (given_up is not None)
        if cause:
            assert cause.is_able
            self.dispatcher.lost(worker, suspects=cause.suspects)
            rest = self.hosts.fault(name, cause.reason, kind=cause.kind, now=now)
            self.process[name] += 1
            if rest and not self.hosts.is_blocked("machine"):
                heapq.heappush(self.events, (rest + LOAD_S, self.process[name], name))


def test_one_filled_gpu_of_eight_costs_no_row_and_is_used_no_longer() -> None:
    rooms = {f"w{number}": 79.0 + number / 100 for number in range(7)} | {"filled": 9.0}
    fleet = Simulated(rooms, lambda number: 60.0)
    assert (len(fleet.done), fleet.given_up) == (200, [])
    assert fleet.failures == {"filled": 3}
    assert fleet.hosts.unused[0].startswith("filled is no longer used: OutOfMemory: does not fit")


@pytest.mark.parametrize(
    ("rooms", "needs", "num_given_up"),
    [
        ({"small": 24.0, "large": 80.0}, lambda number: 40.0 if number % 10 == 0 else 10.0, 0),
        ({"only": 24.0}, lambda number: 90.0 + number if number < 10 else 10.0, 10),  # of many shapes
    ],
)
def test_rows_are_given_up_only_where_no_card_is_large_enough(
    rooms: dict[str, float], needs: Callable[[int], float], num_given_up: int
) -> None:
    fleet = Simulated(rooms, needs)
    assert (len(fleet.done), len(fleet.given_up)) == (200 - num_given_up, num_given_up)


def test_a_row_that_fits_nowhere_is_tried_again_in_a_new_process_and_others_of_its_shape_are_not() -> None:
    fleet = Simulated({"only": 24.0}, lambda number: 90.0 if 50 <= number < 60 else 10.0)
    assert fleet.given_up == [str(number) for number in range(50, 60)]
    assert len(fleet.done) == 190
    assert fleet.failures == {"only": 11}
    assert fleet.process == {"only": 1}
    assert not fleet.hosts.unused


@pytest.mark.parametrize("num_workers", [2, 8, 40])
def test_a_row_that_fits_nowhere_goes_to_no_more_than_a_few_of_equal_workers(num_workers: int) -> None:
    rooms = {f"w{number}": 79.0 + number / 1000 for number in range(num_workers)}
    fleet = Simulated(rooms, lambda number: 90.0 if number == 3 else 10.0, num_rows=4 * num_workers)
    assert fleet.given_up == ["3"]
    assert sum(fleet.failures.values()) == 2


def test_a_row_waits_for_a_new_process_for_which_an_idle_worker_makes_room() -> None:
    dispatcher = Dispatcher()
    for worker in ("A", "B"):
        dispatcher.join(worker, room=80 * GB)
    for row_id in "0123":
        dispatcher.add(Row(row_id=row_id, shape=row_id))
    first = lease(dispatcher, "A").rows[0].row.row_id
    lease(dispatcher, "B")
    assert dispatcher.ran_out("A", first, "full", room=80 * GB - SLACK_BYTES // 2) is None
    dispatcher.lost("A")  # and it does not come back
    dispatcher.close()
    for now in (1.0, 2.0):
        for row_id in dispatcher.rows_of("B"):
            dispatcher.done("B", row_id, now)
        while granted := dispatcher.lease("B", now):
            assert first not in {leased.row.row_id for leased in granted.rows}
    assert (dispatcher.num_waiting, dispatcher.num_for_new("B")) == (1, 1)
    dispatcher.lost("B")
    dispatcher.join("B again", room=80 * GB)
    assert lease(dispatcher, "B again").rows[0].row.row_id == first


def test_rows_that_failed_in_one_worker_need_one_new_process_between_them() -> None:
    dispatcher = Dispatcher()
    dispatcher.join("A", room=80 * GB)
    for row_id in "01":
        dispatcher.add(Row(row_id=row_id, shape="large"))
    dispatcher.close()
    leases = [*iter(lambda: dispatcher.lease("A", 0.0), None)]
    rows = [leased.row.row_id for granted in leases for leased in granted.rows]
    for row_id in rows:  # the second before anybody ended the process
        assert dispatcher.ran_out("A", row_id, "full", room=80 * GB) is None
    dispatcher.lost("A")
    dispatcher.join("B", room=80 * GB)
    for row_id in rows:
        assert [leased.row.row_id for leased in lease(dispatcher, "B", 1.0).rows] == [row_id]
        assert dispatcher.ran_out("B", row_id, "full", room=80 * GB) is not None
    assert dispatcher.finished


def test_a_row_that_ran_out_is_not_given_up_while_another_worker_renders_a_copy_of_it() -> None:
    dispatcher = Dispatcher(size=LeaseSize(min_rows=1))
    for row_id in "012":
        dispatcher.add(Row(row_id=row_id, shape="large"))
    dispatcher.close()
    for worker in "ABC":
        dispatcher.join(worker, room=80 * GB)
        lease(dispatcher, worker)
    dispatcher.done("B", "1", 10.0)
    assert dispatcher.ran_out("C", "2", "full", room=80 * GB) is None
    dispatcher.lost("C")
    dispatcher.join("D", room=80 * GB)
    lease(dispatcher, "D", 10.0)
    assert dispatcher.ran_out("D", "2", "full", room=80 * GB), "the shape is known to be too large"
    assert [leased.row.row_id for leased in lease(dispatcher, "B", 100.0).rows] == ["0"], "a copy"
    assert dispatcher.ran_out("A", "0", "full", room=80 * GB) is None
    assert (dispatcher.rows_of("B"), dispatcher.take_dropped("B")) == (("0",), [])
    assert dispatcher.ran_out("B", "0", "full", room=80 * GB) is not None


def test_a_row_that_ran_out_wants_a_new_process_where_one_has_had_rows_of_an_earlier_run() -> None:
    dispatcher = Dispatcher(size=LeaseSize(min_rows=1))
    dispatcher.add(Row(row_id="0", shape="x"))
    dispatcher.close()
    for worker, room in (("A", 8 * GB), ("small", 1 * GB)):
        dispatcher.join(worker, at=("machine",), room=room)
    lease(dispatcher, "A")
    assert dispatcher.ran_out("A", "0", "no room", room=8 * GB) is None
    dispatcher.lost("A")
    dispatcher.join("renewed", at=("machine",), room=8 * GB, is_new=False)
    assert dispatcher.lease("renewed", 1.0) is None, "it is not new"
    assert (dispatcher.num_for_new("renewed"), dispatcher.num_for_new("small")) == (1, 0)
    dispatcher.join("B", at=("machine",), room=8 * GB)
    assert dispatcher.num_for_new("B") == 0, "it takes the row itself"
    assert lease(dispatcher, "B").alone
