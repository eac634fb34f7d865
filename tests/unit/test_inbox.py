"""Rows that have come to a worker start in their order, their inputs read ahead of them."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from framefleet import InputError, Request
from framefleet.cluster.worker.messages import Assignment
from framefleet.cluster.worker.queues import Inbox
from framefleet.pipeline.rows.inputs.arguments import ReadAhead


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


class Shelf:
    def __init__(self, **content: bytes) -> None:
        self.content = content
        self.reads: list[str] = []

    def read(self, uri: str) -> bytes:
        self.reads.append(uri)
        if uri not in self.content:
            raise InputError(f"{uri} does not exist", "check the path")
        return self.content[uri]


def test_what_was_read_ahead_is_not_read_again() -> None:
    shelf = Shelf(a=b"a")
    ahead = ReadAhead(shelf.read)
    ahead.start("a")
    ahead.start("a")
    assert [ahead.read("a"), ahead.read("a")] == [b"a", b"a"]
    assert shelf.reads == ["a"]
    ahead.start("late")
    with pytest.raises(InputError):
        ahead.read("late")
    shelf.content["late"] = b"late"
    assert ahead.read("late") == b"late", "the next row tries again"


def test_reads_wait_for_one_that_is_under_way() -> None:
    may_end = threading.Event()

    def slow(uri: str) -> bytes:
        may_end.wait()
        return uri.encode()

    ahead = ReadAhead(slow)
    ahead.start("a")
    threading.Timer(0.01, may_end.set).start()
    assert ahead.read("a") == b"a"


def test_the_oldest_go_when_the_bound_is_passed() -> None:
    shelf = Shelf(a=b"aaaa", b=b"bbbb", c=b"cccc")
    ahead = ReadAhead(shelf.read, max_bytes=9)
    for uri in "abc":
        ahead.start(uri)
        ahead.read(uri)
    ahead.start("d")
    assert ahead.read("c") == b"cccc"
    assert ahead.read("a") == b"aaaa"
    assert shelf.reads.count("a") == 2
    assert shelf.reads.count("c") == 1
