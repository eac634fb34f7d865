"""Signals are put off within a context: one asks, Ctrl-C again hastens, a third one goes where it would."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import pytest

import framefleet
from framefleet.cluster.driver.lock import STOP, DriverLock
from framefleet.cluster.driver.stop import SIGNALS, Stop
from framefleet.cluster.fleet.start import Start
from framefleet.cluster.worker.worker import Notice
from framefleet.jobs.render import render
from framefleet.jobs.show.console import reporting
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.seals import request_path
from framefleet.plugins.keep.repair import repair
from framefleet.plugins.watch.control import ask_driver
from tests.jobs import job_values, prompt_rows, write_table
from tests.outputs import committed


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """As in a terminal, whatever started the tests, and what a test leaves changes nothing for others."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_is_delivered_when_the_context_ends_or_it_is_checked_on_the_way() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        assert not stop.is_asked
        signal.raise_signal(signal.SIGINT)
        assert stop.is_asked and not stop.is_urgent
        done.append("the work")
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        stop.check()
        pytest.fail("it goes on")
    with pytest.raises(ValueError, match="the store"), Stop():
        signal.raise_signal(signal.SIGINT)
        raise ValueError("the store")


def test_ctrl_c_again_is_urgent_and_once_more_is_not_put_off() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append(stop.is_urgent)
        signal.raise_signal(signal.SIGINT)
        done.append("not reached")
    assert done == [True]


def test_ctrl_c_twice_is_urgent_also_while_no_python_runs() -> None:
    pid = os.getpid()
    # Of two that wait for a process which gets no turn the kernel keeps one: the first has to arrive before.
    arrives = f"while grep -q '^ShdPnd:.*[2367abef]$' /proc/{pid}/status; do sleep 0.01; done"
    twice = f"kill -INT {pid}; sleep 0.1; {arrives}; kill -INT {pid}"
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        sender = subprocess.Popen(["sh", "-c", twice])
        while sender.poll() is None:
            sum(range(20_000_000))  # handlers are called after it, as after a call of Ray's
        assert stop.is_urgent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_that_come_twice_do_not_hasten(number: int) -> None:
    with pytest.raises(SystemExit) as ended, reporting(verbose=False), Stop() as stop:
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert stop.is_asked and not stop.is_urgent
    assert ended.value.code == 128 + number
    done = []
    with pytest.raises(SystemExit), reporting(verbose=False):
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # while the command tidies up
            done.append("tidied up")
    assert done


def test_in_another_thread_nothing_is_put_off() -> None:
    def work() -> bool:
        with Stop() as stop:
            return stop.is_asked

    with ThreadPoolExecutor() as threads:
        assert not threads.submit(work).result()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signals_that_are_ignored_or_the_systems_stay_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    with Stop() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert not stop.is_asked


def test_a_worker_that_is_sent_sigterm_lives_on_and_says_so() -> None:
    notice = Notice()
    notice.heed()
    assert not notice.is_given
    signal.raise_signal(signal.SIGTERM)
    assert notice.is_given


class AskedLate(DriverLock):
    """Is asked to end as it ends."""

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._store.write(request_path(self.epoch, STOP), b"")


@pytest.mark.parametrize(("module", "command"), [(render, framefleet.render), (repair, framefleet.repair)])
def test_a_job_that_is_to_stop_as_it_ends_begins_no_other_run(
    module: ModuleType, command: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = committed(tmp_path)
    command(job)
    monkeypatch.setattr(module, "DriverLock", AskedLate)
    with pytest.raises(KeyboardInterrupt):
        command(job)


class AskedEarly(DriverLock):
    """Is asked to end as it begins."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._store.write(request_path(self.epoch, STOP), b"")
        self._look()
        return self


def test_a_job_that_is_to_stop_before_its_first_row_writes_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(render, "DriverLock", AskedEarly)
    table = write_table(tmp_path / "t.parquet", prompt_rows(1))
    with pytest.raises(KeyboardInterrupt):
        framefleet.render(job_values(table, tmp_path / "out"))
    assert "before the first row" in caplog.text and not (tmp_path / "out" / "rows").exists()


def test_a_job_that_is_to_stop_while_ray_starts_waits_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fleet(start: Start, waiting: Callable[[], None]) -> None:
        ask_driver(Output.open(str(tmp_path / "out")), STOP)
        while True:
            waiting()
            time.sleep(0.01)

    monkeypatch.setattr(render, "DriverLock", partial(DriverLock, beat_s=0.02))
    monkeypatch.setattr(Start, "begin", lambda *_: None)
    monkeypatch.setattr(Start, "fleet", fleet)
    table = write_table(tmp_path / "t.parquet", prompt_rows(1))
    with pytest.raises(KeyboardInterrupt):
        framefleet.render(job_values(table, tmp_path / "out"))
    assert "before the first row" in caplog.text
