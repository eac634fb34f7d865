"""Tests that `make test` leaves out. The last line of a run says which.

Those marked `long` are breadth: one more case of what another test shows once. What guards a promise is not
long. Those marked `ci` take minutes: promises under load, chance and failing machines; of a test marked
`daily(n)`, these are all cases but the first n. They run with CI set,
and so do those of the periphery (ports of networks, training, the demo, the tools). Without it, these run
only if the periphery or what it imports has changed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.changed import changed_files, periphery_is_concerned

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_LEFT_OUT = pytest.StashKey[int]()
_OF_A_PROCESS = "framefleet_left_out"
# For the processes that run the tests. `make test-changed` sets the first.
_WITHOUT_CI, _WITHOUT_PERIPHERY = "FRAMEFLEET_TESTS_WITHOUT_CI", "FRAMEFLEET_TESTS_WITHOUT_PERIPHERY"


def long_but(cases: Iterable[Any], *short: Any, in_ci: Iterable[Any] = ()) -> list[Any]:
    """Return the cases of a parametrized test, `long` but for those named; `in_ci` are marked so."""
    cases, in_ci = list(cases), list(in_ci)
    assert all(case in cases for case in (*short, *in_ci)), f"of {short} and {in_ci} some are no cases"
    return [
        case
        if case in short
        else pytest.param(case, marks=pytest.mark.ci if case in in_ci else pytest.mark.long)
        for case in cases
    ]


def examples(most: int) -> int:
    """Return how many examples a property test tries: all in CI, a third of them elsewhere."""
    return most if "CI" in os.environ else most // 3


def pytest_configure(config: pytest.Config) -> None:
    """Decide once for all processes, where nobody named files."""
    is_all = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.getoption("markexpr")
    if is_all and "CI" not in os.environ:
        os.environ[_WITHOUT_CI] = "1"
        if not periphery_is_concerned(changed_files()):
            os.environ[_WITHOUT_PERIPHERY] = "1"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Its files, for pytest does not ask about a folder that `testpaths` names."""
    is_below = "periphery" in collection_path.relative_to(config.rootpath).parts
    return True if is_below and _WITHOUT_PERIPHERY in os.environ else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave them out, unless a run chooses by markers itself: `-m long`."""
    if config.getoption("markexpr"):
        return
    kept = [item for item in items if not item.get_closest_marker("long")]
    if _WITHOUT_CI in os.environ:
        kept = list(_daily(item for item in kept if not item.get_closest_marker("ci")))
    config.stash[_LEFT_OUT] = len(items) - len(kept)
    items[:] = kept


def _daily(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """Yield those of the first cases alone, where a test says how many."""
    num_cases: Counter[str] = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        num_cases[test] += 1
        marker = item.get_closest_marker("daily")
        if marker is None or num_cases[test] <= marker.args[0]:
            yield item


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # this is one of several processes
        output[_OF_A_PROCESS] = session.config.stash.get(_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Each process has collected all tests, and left out the same."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get(_OF_A_PROCESS, 0)


def pytest_unconfigure(config: pytest.Config) -> None:
    num_left_out, reporter = (
        config.stash.get(_LEFT_OUT, 0),
        config.pluginmanager.get_plugin("terminalreporter"),
    )
    if not reporter or config.getoption("collectonly"):
        return
    if num_left_out:
        reporter.write_line(
            f"{len(reporter.stats.get('passed', ()))} passed; {num_left_out} tests were left out: "
            "`make test-long` runs the long ones, `make test CI=1` those of load and faults"
        )
    if _WITHOUT_PERIPHERY in os.environ:
        reporter.write_line(
            "tests/periphery was left out: neither it nor what it imports changed; `make test CI=1` runs it"
        )
