"""One process of libraries answers all who ask while it is in use, and what ends it ends nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.sandbox import Ended
from framefleet.pipeline.model.library_process import LibraryProcess
from tests.library_questions import crash, eat, pid, read_input, refuse

LIBRARY_PROCESS = LibraryProcess(max_silence_s=60.0)


def test_a_process_is_there_while_it_is_in_use_and_no_longer() -> None:
    with LIBRARY_PROCESS.use():
        number, word = LIBRARY_PROCESS.ask(pid, "hello")
        with LIBRARY_PROCESS.use():
            assert LIBRARY_PROCESS.ask(pid) == [number]
        assert LIBRARY_PROCESS.ask(pid) == [number]
    assert word == "hello" and number != os.getpid()
    assert not psutil.pid_exists(number)
    with LIBRARY_PROCESS.use():
        assert LIBRARY_PROCESS.ask(pid) != [number]


def test_what_a_question_raises_of_ours_is_raised_here() -> None:
    with LIBRARY_PROCESS.use():
        number = LIBRARY_PROCESS.ask(pid)
        with pytest.raises(ModelError, match="it is damaged") as raised:
            LIBRARY_PROCESS.ask(refuse)
        assert raised.value.fix == "download it again"
        assert LIBRARY_PROCESS.ask(pid) == number


@pytest.mark.parametrize(("question", "why"), [(crash, "SIGSEGV"), (eat, "exit code 1")])
def test_a_question_that_ends_the_process_ends_nothing_else(question: Callable[[], Any], why: str) -> None:
    with LIBRARY_PROCESS.use():
        with pytest.raises(Ended, match=f"the process that called the libraries crashed .{why}"):
            LIBRARY_PROCESS.ask(question)
        assert LIBRARY_PROCESS.ask(pid) != [os.getpid()]


def test_nothing_reads_what_is_sent_but_the_process_itself(tmp_path: Path) -> None:
    with LIBRARY_PROCESS.use():
        assert LIBRARY_PROCESS.ask(read_input) == ""
        assert LIBRARY_PROCESS.ask(pid, "again")[1] == "again"
