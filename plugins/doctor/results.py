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


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a check found on a machine. fix: what to do about it; empty where all is well.

    error: jobs fail or hang here. warning: jobs are slower, or a part of framefleet does not work.
    """

    machine: str = ""
    check: str = ""
    state: Literal["ok", "warning", "error"]
    text: str
    fix: str = ""
    seconds: float = 0.0


Check = Callable[[], Iterable[CheckResult]]
STORE = "store"  # the check whose silence is an error: jobs would hang too


def ok(text: str) -> CheckResult:
    return CheckResult(state="ok", text=text)


def warning(text: str, fix: str) -> CheckResult:
    return CheckResult(state="warning", text=text, fix=fix)


def error(text: str, fix: str) -> CheckResult:
    return CheckResult(state="error", text=text, fix=fix)


def run_checks(checks: Mapping[str, Check]) -> list[CheckResult]:
    """Run checks at once; return what they found, in their order. The thread of one that hangs is left."""
    began, results_by_check = time.monotonic(), dict[str, list[CheckResult]]()

    def run(name: str) -> None:
        try:
            results = list(checks[name]())
        except FramefleetError as failure:
            results = [error(failure.problem, failure.fix)]
        except Exception as failure:  # of a library that is broken, which is what is looked for
            message = public_text(f"{type(failure).__name__}: {failure}")
            results = [error(f"the check failed: {message}", "see whether the library that raised it works")]
        seconds = round(time.monotonic() - began, 2)
        results_by_check[name] = [replace(result, check=name, seconds=seconds) for result in results]

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in checks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, began + LIMIT_S - time.monotonic()))
    problem, fix = f"no result after {LIMIT_S:.0f} s", "run it again when the machine has less to do"
    for name in checks:
        late = error(problem, "see whether it answers") if name == STORE else warning(problem, fix)
        results_by_check.setdefault(name, [replace(late, check=name, seconds=LIMIT_S)])
    return [result for name in checks for result in results_by_check[name]]
