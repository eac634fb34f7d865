"""One process of libraries answers all who ask while it is in use, and what ends it ends nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
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
        with pytest.raises(ModelError, match="it is damaged\nhint: download it again"):
            LIBRARY_PROCESS.ask(refuse)
        assert LIBRARY_PROCESS.ask(read_input) == "", "nothing reads what is sent but the process itself"
        assert LIBRARY_PROCESS.ask(pid) == [number]
    assert word == "hello" and number != os.getpid()
    assert not psutil.pid_exists(number)
    with LIBRARY_PROCESS.use():
        assert LIBRARY_PROCESS.ask(pid) != [number]


@pytest.mark.parametrize(("question", "why"), [(crash, "SIGSEGV"), (eat, "exit code 1")])
def test_a_question_that_ends_the_process_ends_nothing_else(question: Callable[[], Any], why: str) -> None:
    with LIBRARY_PROCESS.use():
        with pytest.raises(Ended, match=f"the process that called the libraries crashed .{why}"):
            LIBRARY_PROCESS.ask(question)
        assert LIBRARY_PROCESS.ask(pid) != [os.getpid()]
