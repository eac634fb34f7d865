"""How long each case takes: measured by `make test-all`, and kept in a file for the runs that follow.

A case takes what its own code takes and what its fixtures take, also those that another case has set up:
without that case it would set them up itself.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE = "tests/durations.json"
SLOW_S = 1.0  # the least that counts as slow, with four processes on two cores
_FIXTURES = "fixture_s"

_setups_s: dict[str, float] = {}  # of the last set-up of each fixture in this process, by its name


@dataclass(frozen=True, slots=True, kw_only=True)
class FullRun:
    """The last run of all cases in which none failed. slow_s: seconds of each slow case, by file and name."""

    commit: str = ""
    date: str = ""
    num_cases: int = 0
    wall_s: float = 0.0
    slow_s: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def seconds(self, case: str) -> float | None:
        """Return how long a case takes, by its node id; None for one that is quick, or was not there."""
        file, _, name = case.partition("::")
        return self.slow_s.get(file, {}).get(name)

    def file_s(self, file: str) -> float:
        return sum(self.slow_s.get(file, {}).values())


@cache
def last_full_run(root: Path = ROOT) -> FullRun:
    """Return what the file below `root` says; without it nothing is slow."""
    file = root / FILE
    return FullRun(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else FullRun()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        _setups_s[fixturedef.argname] = time.perf_counter() - began


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.when == "call":
        names = getattr(item, "fixturenames", ())
        item.user_properties.append((_FIXTURES, sum(_setups_s.get(name, 0) for name in names)))


class Durations:
    """Adds up what each case takes, and writes it where all have passed."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "setup":  # which is in the fixtures
            self._seconds[report.nodeid] += report.duration
        if report.when == "call":
            properties: dict[str, Any] = dict(report.user_properties)
            self._seconds[report.nodeid] += properties.get(_FIXTURES, 0.0)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK:
            wall_s = round(time.monotonic() - self._began)
            write(self._seconds, session.config.rootpath, wall_s=wall_s)


def write(seconds: Mapping[str, float], root: Path, *, wall_s: float) -> None:
    """Write the slow ones among cases, with the commit that they were measured at."""
    slow: dict[str, dict[str, float]] = defaultdict(dict)
    for case, duration in sorted(seconds.items()):
        if duration >= SLOW_S:
            file, _, name = case.partition("::")
            slow[file][name] = round(duration, 1)
    ran = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    run = FullRun(
        commit=ran.stdout.strip(),
        date=time.strftime("%Y-%m-%d"),
        num_cases=len(seconds),
        wall_s=wall_s,
        slow_s=dict(slow),
    )
    (root / FILE).write_text(json.dumps(asdict(run), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
