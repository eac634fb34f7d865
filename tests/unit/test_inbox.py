"""Rows that have come to a worker start in their order, but for those whose inputs are still to be read."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from framefleet import Request
from framefleet.cluster.worker.messages import Assignment
from framefleet.cluster.worker.queues import Inbox


class Desk:
    """An inbox, and what it asked for and told."""

    def __init__(self) -> None:
        self.fetched: dict[str, Future[bytes | None]] = {}
        self.num_told = 0
        self.inbox = Inbox(self._fetch, self._told)

    def add(self, row_id: str, *inputs: Future[bytes], **values: bool) -> None:
        self.inbox.add(
            Assignment(row_id=row_id, request=Request(arguments={}), attempt=1, **values), [*inputs]
        )

    def taken(self, room: int = 8) -> list[str]:
        return [row.assignment.row_id for row in self.inbox.take(room)]

    def _fetch(self, row_id: str) -> Future[bytes | None]:
        return self.fetched.setdefault(row_id, Future())

    def _told(self) -> None:
        self.num_told += 1


@pytest.mark.parametrize("is_there", [True, False])
def test_rows_start_in_their_order_but_for_those_whose_inputs_are_not_read(is_there: bool) -> None:
    desk, first, second = Desk(), Future[bytes](), Future[bytes]()
    desk.add("a", first, second)
    for row_id in "bcd":
        desk.add(row_id)
    second.set_result(b"image")
    assert [desk.taken(0), desk.taken(-1), desk.taken(2), desk.taken(2)] == [[], [], ["b", "c"], ["d"]]
    if is_there:
        first.set_result(b"image")
    else:
        first.set_exception(ConnectionError())  # raised where the row reads it
    assert (desk.num_told, desk.taken(), len(desk.inbox)) == (2, ["a"], 0)


def test_checkpoints_are_fetched_for_rows_whose_turn_comes_and_no_more() -> None:
    desk = Desk()
    for row_id in "abc":
        desk.add(row_id, has_checkpoint=True)
    desk.add("d", has_checkpoint=True, is_apart=True)
    assert desk.taken(2) == ["d"]
    assert [*desk.fetched] == ["a", "b"]
    desk.fetched["b"].set_result(b"half")
    (row,) = desk.inbox.take(2)
    assert row.checkpoint is not None and row.checkpoint.result() == b"half"
    assert [row.row_id for row in desk.inbox.take_all()] == ["a", "c"]
    assert (desk.num_told, len(desk.inbox)) == (1, 0)


def test_a_row_waits_for_the_end_of_its_earlier_attempt() -> None:
    desk = Desk()
    for row_id in "ab":
        desk.add(row_id, has_checkpoint=row_id == "a")
    assert [row.assignment.row_id for row in desk.inbox.take(1, {"a": 1})] == ["b"]
    assert not desk.fetched, "its checkpoint may be one of that attempt"
    assert desk.taken() == [] and [*desk.fetched] == ["a"]
