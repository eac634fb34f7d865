"""In: checks, each a function. Out: what each found, within ten seconds, whatever it does or waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.guards.redaction import public_text

LIMIT_S = 10.0  # for each check: a hung disk, driver or server is a result too

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a check found on a machine. fix: what to do about it; empty where all is well.

    error: jobs fail or hang here. warning: jobs are slower, or a part of framefleet does not work.
    """

    machine: str = ""
    check: str = ""
    state: State
    text: str
    fix: str = ""
    seconds: float = 0.0


Check = Callable[[], Iterable[CheckResult]]


def ok(text: str) -> CheckResult:
    return CheckResult(state="ok", text=text)


def warning(text: str, fix: str) -> CheckResult:
    return CheckResult(state="warning", text=text, fix=fix)


def error(text: str, fix: str) -> CheckResult:
    return CheckResult(state="error", text=text, fix=fix)


def run_checks(checks: Mapping[str, Check], *, machine: str) -> list[CheckResult]:
    """Run checks at once, in threads; return what they found, in their order."""
    running = [_Running(name, check, machine) for name, check in checks.items()]
    return [result for one in running for result in one.results()]


class _Running:
    """A check under way. Its thread is left behind where it hangs."""

    def __init__(self, name: str, check: Check, machine: str) -> None:
        self._name, self._check, self._machine = name, check, machine
        self._found: list[CheckResult] = []
        self._seconds = 0.0
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"doctor-{name}", daemon=True)
        self._thread.start()

    def results(self) -> list[CheckResult]:
        self._thread.join(max(0.0, self._began + LIMIT_S - time.monotonic()))
        if self._thread.is_alive():
            late = warning(f"no result after {LIMIT_S:.0f} s", "run it again when the machine has less to do")
            return [self._named(late, LIMIT_S)]
        return [self._named(result, self._seconds) for result in self._found]

    def _run(self) -> None:
        try:
            self._found = list(self._check())
        except FramefleetError as failure:
            self._found = [error(failure.problem, failure.fix)]
        except Exception as failure:  # of a library that is broken, which is what is looked for
            said = public_text(f"{type(failure).__name__}: {failure}")
            self._found = [error(f"the check failed: {said}", "see whether the library that raised it works")]
        self._seconds = time.monotonic() - self._began

    def _named(self, found: CheckResult, seconds: float) -> CheckResult:
        return replace(found, machine=self._machine, check=self._name, seconds=round(seconds, 2))
