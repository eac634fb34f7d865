"""What classes say: one process of libraries is asked, what it said is kept, what is damaged asked again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest
from pydantic import TypeAdapter

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.sandbox import Ended
from framefleet.pipeline.model import class_cache as kept_module
from framefleet.pipeline.model.class_cache import disk_cached, one_fetcher
from framefleet.pipeline.model.library_process import LibraryProcess
from tests.library_questions import crash, eat, pid, read_input, refuse

Asking = Callable[[str, object], dict[str, int]]


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def ask(asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asking:
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path))

    @disk_cached(TypeAdapter(dict[str, int]))
    def answer(name: str, config: object) -> dict[str, int]:
        asked.append(name)
        return {name: len(asked)}

    return answer


def only_file(folder: Path) -> Path:
    (file,) = (folder / "classes").iterdir()
    return file


def test_a_class_is_asked_once_and_nothing_half_written_is_left(ask: Asking, tmp_path: Path) -> None:
    assert [ask("Wan", {"size": 5}) for _ in range(3)] == [{"Wan": 1}] * 3
    assert only_file(tmp_path).suffix == ".json"


def test_an_answer_is_of_its_user_alone(ask: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0)
    try:
        ask("Wan", {})
    finally:
        os.umask(before)
    assert only_file(tmp_path).stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "getuid", lambda: -1)  # another user's file
    assert ask("Wan", {}) == {"Wan": 2}


def test_another_config_and_other_packages_are_other_questions(
    ask: Asking, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("Wan", {"size": 5})
    ask("Wan", {"size": 5.0})
    monkeypatch.setattr(kept_module, "_installed", lambda: "another diffusers")
    ask("Wan", {"size": 5})
    assert len(asked) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 100_000,
        lambda text: json.dumps({"Wan": "many"}),
        lambda text: "\udcff",
    ],
)
def test_what_is_damaged_or_another_answer_is_made_anew(
    damage: Callable[[str], str], ask: Asking, tmp_path: Path
) -> None:
    ask("Wan", {})
    file = only_file(tmp_path)
    file.write_bytes(damage(file.read_text()).encode("utf-8", "surrogateescape"))
    assert ask("Wan", {}) == {"Wan": 2}
    assert ask("Wan", {}) == {"Wan": 2}


def test_a_folder_or_a_pipe_in_its_place_is_not_waited_for(ask: Asking, tmp_path: Path) -> None:
    ask("Wan", {})
    file = only_file(tmp_path)
    file.unlink()
    file.mkdir()
    assert ask("Wan", {}) == {"Wan": 2}
    file.rmdir()
    os.mkfifo(file)
    assert ask("Wan", {}) == {"Wan": 3}


def test_what_json_cannot_say_or_no_folder_keeps_is_asked_each_time(
    ask: Asking, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for config in (float("nan"), {"a": object()}, {"a": "\ud800"}):
        ask("Wan", config)
        ask("Wan", config)
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "file"))
    assert [ask("Wan", {}), ask("Wan", {})] == [{"Wan": 7}, {"Wan": 8}]


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock of "a model", without end."""
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path))
    with one_fetcher("a model"):
        pass
    (lock,) = (tmp_path / "locks").iterdir()
    program = f"import fcntl; file = open({str(lock)!r}); fcntl.flock(file, 2); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout and process.stdout.readline()
        yield process
        process.kill()


def test_a_lock_that_is_held_without_end_is_waited_for_aloud_and_not_for_ever(
    holder: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with one_fetcher("a model", max_wait_s=0.2), one_fetcher("another"):
        pass
    (message,) = caplog.messages
    who = f"process {holder.pid} of user {os.getuid()}" if Path("/proc/locks").exists() else "another process"
    assert message.startswith(f"{who} is busy with a model and holds the lock ")


def test_a_lock_is_taken_once_its_holder_has_died(
    holder: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    threading.Timer(0.1, holder.kill).start()
    with one_fetcher("a model", max_wait_s=60):
        assert not caplog.messages


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
