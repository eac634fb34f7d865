"""What rows leave changed of their process is as before once they have ended."""

from __future__ import annotations

import builtins
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from framefleet import Store
from framefleet.pipeline.hooks.process_state import ProcessState

FILES, STACK = resource.RLIMIT_NOFILE, resource.RLIMIT_STACK


def _refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a recipe's own function")


def _in_a_folder_that_is_gone() -> None:
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")


def _umask() -> int:
    os.umask(before := os.umask(0o022))
    return before


CHANGES: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {  # what is done, what it changes
    "builtins.open": (lambda: setattr(builtins, "open", _refuse), lambda: open),
    "builtins.print": (lambda: delattr(builtins, "print"), lambda: vars(builtins).get("print")),
    "os.replace": (lambda: setattr(os, "replace", _refuse), lambda: os.replace),
    "shutil.copyfile": (lambda: setattr(shutil, "copyfile", _refuse), lambda: shutil.copyfile),
    "time.monotonic": (lambda: setattr(time, "monotonic", float), lambda: time.monotonic),
    "the umask": (lambda: os.umask(0o777), _umask),
    "": (_in_a_folder_that_is_gone, lambda: os.stat(".").st_ino),
    "socket.setdefaulttimeout": (lambda: socket.setdefaulttimeout(0.01), socket.getdefaulttimeout),
    "sys.setrecursionlimit": (lambda: sys.setrecursionlimit(500), sys.getrecursionlimit),
    "resource.setrlimit": (
        lambda: resource.setrlimit(FILES, (64, resource.getrlimit(FILES)[1])),
        lambda: (resource.getrlimit(FILES), resource.getrlimit(STACK)),
    ),
    "a timer": (lambda: signal.alarm(100), lambda: signal.getitimer(signal.ITIMER_REAL)),
}


@pytest.fixture(autouse=True)
def _no_timer() -> Iterator[None]:
    """Have none of the tests' own, as processes of workers have none."""
    left = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, *left)


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_row_changes_of_its_process_is_set_back(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    change, state = CHANGES[name]
    process, before = ProcessState(), state()
    with pytest.raises(ValueError, match="the row's own"), process.preserved():
        change()
        raise ValueError("the row's own")
    assert state() == before
    assert name in caplog.text
    caplog.clear()
    with process.preserved():
        """A row that leaves everything as it is."""
    assert state() == before and not caplog.records


def test_rows_that_began_later_end_with_what_was_there_before_the_first() -> None:
    process, before = ProcessState(), _umask()
    with process.preserved(), ExitStack() as second:
        os.umask(0o777)
        second.enter_context(process.preserved())
        os.umask(0o000)
        second.close()
        assert _umask() == before, "the first may still be under way"
    assert _umask() == before


def test_the_clip_of_another_row_is_stored_while_a_recipe_has_replaced_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    store = Store(str(tmp_path / "out"))
    with ProcessState().preserved():
        builtins.open = _refuse
        store.write("clips/a", b"clip")
        assert store.read("clips/a") == b"clip"
