"""tests/gpu, as results, the shortest first: one of each test, as it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.benchmarks.results import Tell

TESTS = Path(__file__).parents[2] / "tests" / "gpu"
MAX_SHOWN = 3000
# By how long they take: what a call that is cut off leaves out is the longest.
ORDER = (
    "pixels",
    "triton_linear",
    "draws",
    "half_done",
    "options",
    "embeddings",
)
# Not those of pyproject.toml: they refuse settings of plugins, which a borrowed machine may lack.
OPTIONS = ("-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib")


class _Telling:
    """A plugin that tells what becomes of tests."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda test: ORDER.index(test.path.stem.removeprefix("test_")))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._tell({"collected": len(session.items)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            said = str(report.longrepr)[-MAX_SHOWN:] if report.failed else ""
            test, seconds = report.nodeid, round(report.duration, 1)
            self._tell({"test": test, "outcome": report.outcome, "s": seconds, "said": said})


def run(arguments: Sequence[str], tell: Tell) -> None:
    """Tell them; raise if one has failed."""
    code = pytest.main([*arguments, *OPTIONS, str(TESTS)], [_Telling(tell)])
    assert code == pytest.ExitCode.OK, f"pytest ended with {code!r}"
