"""What rows need is read before they start, within a bound."""

from __future__ import annotations

import threading

import pytest

from framefleet.pipeline.errors import InputError
from framefleet.pipeline.rows.inputs.arguments import ReadAhead


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
