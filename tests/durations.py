"""How long each case takes: measured by `make test-all`, and kept in a file for the runs that follow.

A case takes what its own code takes and what its fixtures take, also those that another case has set up:
without that case it would set them up itself. A room, the slow cases of one file, sets each of them up once.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
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
    """The last run of all cases in which none failed.

    slow_s: seconds of each slow case, by file and name; rooms_s: of all slow cases of a file together.
    """

    commit: str = ""
    date: str = ""
    num_cases: int = 0
    wall_s: float = 0.0
    rooms_s: Mapping[str, float] = field(default_factory=dict)
    slow_s: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def seconds(self, case: str) -> float | None:
        """Return how long a case takes, by its node id; None for one that is quick, or was not there."""
        file, _, name = case.partition("::")
        return self.slow_s.get(file, {}).get(name)


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
        item.user_properties.append((_FIXTURES, {name: _setups_s.get(name, 0.0) for name in names}))


@dataclass(slots=True)
class CaseTime:
    own_s: float = 0.0
    fixtures_s: dict[str, float] = field(default_factory=dict)

    @property
    def total_s(self) -> float:
        return self.own_s + sum(self.fixtures_s.values())


class Durations:
    """Adds up what each case takes, and writes it where all have passed."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._times: dict[str, CaseTime] = defaultdict(CaseTime)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        case = self._times[report.nodeid]
        if report.when != "setup":  # which is in the fixtures
            case.own_s += report.duration
        if report.when == "call":
            case.fixtures_s = dict(report.user_properties).get(_FIXTURES, {})  # type: ignore[assignment]

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK:
            wall_s = round(time.monotonic() - self._began)
            write(self._times, session.config.rootpath, wall_s=wall_s)


def write(times: Mapping[str, CaseTime], root: Path, *, wall_s: float) -> None:
    """Write the slow ones among cases, with the commit that they were measured at."""
    rooms: dict[str, dict[str, CaseTime]] = defaultdict(dict)
    for case, taken in sorted(times.items()):
        if taken.total_s >= SLOW_S:
            file, _, name = case.partition("::")
            rooms[file][name] = taken
    ran = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    run = FullRun(
        commit=ran.stdout.strip(),
        date=time.strftime("%Y-%m-%d"),
        num_cases=len(times),
        wall_s=wall_s,
        rooms_s={file: round(_room_s(cases.values()), 1) for file, cases in rooms.items()},
        slow_s={
            file: {name: round(taken.total_s, 1) for name, taken in cases.items()}
            for file, cases in rooms.items()
        },
    )
    (root / FILE).write_text(json.dumps(asdict(run), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _room_s(cases: Collection[CaseTime]) -> float:
    fixtures_s: dict[str, float] = {}
    for case in cases:
        for name, seconds in case.fixtures_s.items():
            fixtures_s[name] = max(seconds, fixtures_s.get(name, 0.0))
    return sum(case.own_s for case in cases) + sum(fixtures_s.values())
