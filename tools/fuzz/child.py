"""In: a case. Out: how it ended, run in a forked child with bounded memory and time."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import typer

from framefleet.jobs.show import console
from tools.fuzz.case import Case

MEMORY_BYTES = 3 << 30  # besides what the parent holds already
LIMIT_S = 60.0
MARK = "was-run"
RAW_EXCEPTION = "an exception holds raw control characters"
# What a terminal acts on, or shows as something else: controls but line ends and tabs, and turned text.
RAW = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """code: the exit code, negative for a signal; None when the time was over.

    peak_bytes: resident, beyond what its parent was when it was forked.
    ran_code: a file is there that only code out of the input would have written.
    """

    code: int | None
    printed: str
    seconds: float
    peak_bytes: int
    ran_code: bool


def run(case: Case, folder: Path, *, limit_s: float = LIMIT_S) -> Outcome:
    """Run a case in its folder. The parent must have no threads that hold locks."""
    log = folder.parent / f"{folder.name}.log"
    started = time.monotonic()
    before = _memory(1)
    pid = os.fork()
    if pid == 0:
        _be_child(case, folder, log)
    code, usage = _waited(pid, started + limit_s)
    return Outcome(
        code=code,
        printed=log.read_bytes().decode("utf-8", "surrogateescape"),
        seconds=time.monotonic() - started,
        peak_bytes=usage.ru_maxrss * 1024 - before,
        ran_code=any(folder.rglob(MARK)),
    )


def _memory(column: int) -> int:
    """Return the bytes that this process has: mapped (0) or resident (1)."""
    return int(Path("/proc/self/statm").read_text().split()[column]) * os.sysconf("SC_PAGE_SIZE")


def _reported(error: BaseException, report: Callable[[BaseException], int] = console._report) -> int:
    """Report an error as a command does, and mark one whose own text would reach a terminal raw."""
    if RAW.search(str(error)):
        print(RAW_EXCEPTION)
    return report(error)


def _waited(pid: int, deadline: float) -> tuple[int | None, resource.struct_rusage]:
    while time.monotonic() < deadline:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    return None, os.wait4(pid, 0)[2]


def _be_child(case: Case, folder: Path, log: Path) -> None:
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (_memory(0) + MEMORY_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(folder)
        os.environ["TMPDIR"] = str(folder)
        target = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", closefd=False) for number in (1, 2)
        )  # pytest has its own
        code = _code_of(case)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # the parent's own files and temporary folders are not the child's to clean


def _code_of(case: Case) -> int:
    try:
        with mock.patch.object(console, "_report", _reported):
            case.run()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except typer.Exit as ended:  # of a call of the Python API
        return ended.exit_code
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
