"""Sandboxes: what goes wrong in one stays in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from framefleet.pipeline.guards.sandbox import Ended, Sandboxes


@pytest.fixture
def boxes() -> Iterator[Sandboxes]:
    with closing(Sandboxes("tests.sandboxed", max_silence_s=120.0)) as boxes:
        yield boxes


def said(boxes: Sandboxes, message: bytes) -> str:
    with boxes.one() as box:
        box.send(message)
        return box.receive().decode()


def test_a_sandbox_is_another_process_used_again_and_two_at_one_time_are_two(boxes: Sandboxes) -> None:
    pid, word = said(boxes, b"hello").split()
    assert (word, int(pid) != os.getpid()) == ("hello", True)
    assert said(boxes, b"again") == f"{pid} again"
    with boxes.one() as first, boxes.one() as second:
        for box in (first, second):
            box.send(b"hello")
        assert first.receive() != second.receive()


@pytest.mark.parametrize(("message", "why"), [(b"crash", "SIGSEGV"), (b"eat", "exit code 1")])
def test_a_crash_and_a_want_of_memory_end_the_sandbox_alone(
    message: bytes, why: str, boxes: Sandboxes
) -> None:
    pid = said(boxes, b"hello").split()[0]
    with pytest.raises(Ended, match=f"the process that read it crashed .{why}"):
        said(boxes, message)
    assert said(boxes, b"hello").split()[0] != pid


def test_what_is_silent_for_too_long_is_ended() -> None:
    with (
        closing(Sandboxes("tests.sandboxed", max_silence_s=0.1)) as boxes,
        pytest.raises(Ended, match="more than 0 s"),
    ):
        said(boxes, b"sleep")


def test_a_module_of_the_working_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boxes: Sandboxes
) -> None:
    (tmp_path / "resource.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert said(boxes, b"hello").endswith("hello")
    assert not (tmp_path / "ran").exists()


def test_a_forked_process_has_sandboxes_of_its_own(boxes: Sandboxes) -> None:
    pid = said(boxes, b"hello").split()[0]
    child = os.fork()
    if not child:
        is_own = False
        try:
            is_own = said(boxes, b"hello").split()[0] != pid
        finally:  # whatever is raised: it must not go on with the tests
            os._exit(0 if is_own else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert said(boxes, b"hello") == f"{pid} hello"
