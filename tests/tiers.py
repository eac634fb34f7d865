"""Which cases a run takes, by what they are for.

Promises, marked `promise`, always run: one for each sentence of README's promises and each exit code.
Quick cases always run: all that were not slow in the last full run (durations.py). Slow cases are their
file's room, and run where the room changed: where what the file imports differs (changed.py). The nearest
rooms come first, as many as there is time for; the last line of a run says how many cases were left out.
`pytest --all`, as `make test-all` runs it, takes all of them. So does a run of files that somebody named.

`long` cases are breadth: one more of what another case shows. Only `make test-long` runs them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

from tests.changed import EVERYWHERE, changed_files, nearest_tests
from tests.durations import Durations, FullRun, last_full_run

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

# Seconds of slow cases, by the last full run, with four processes on two cores: a quarter passes on a clock.
# The first is for rooms that import what changed, the second for those that import it at some depth.
ROOMS_S = (340, 160)
ROOMS_IN_CI_S = (3000, 800)
_ROOMS = pytest.StashKey[set[str] | None]()  # files whose slow cases run; None: all
_LEFT_OUT = pytest.StashKey[dict[str, int]]()
_OF_A_PROCESS, _TO_A_PROCESS = "framefleet_left_out", "framefleet_rooms"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run slow cases of rooms that did not change, too")
    parser.addoption(
        "--slow-s", type=int, nargs=2, help="seconds for slow cases, in place of those of tiers.py"
    )
    parser.addoption("--changed", metavar="PATHS", help="what changed, with commas; by default git says it")


def pytest_configure(config: pytest.Config) -> None:
    """Decide once for all processes."""
    if hasattr(config, "workerinput"):
        rooms = config.workerinput[_TO_A_PROCESS]
        config.stash[_ROOMS] = None if rooms is None else set(rooms)
        return
    config.stash[_ROOMS] = None
    is_of_files = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    is_chosen = (is_of_files and not config.getoption("slow_s")) or config.getoption("markexpr")
    if is_chosen or config.getoption("collectonly"):
        return
    if config.getoption("all"):
        config.pluginmanager.register(Durations())
    else:
        most_s = config.getoption("slow_s") or (ROOMS_IN_CI_S if "CI" in os.environ else ROOMS_S)
        paths: str | None = config.getoption("changed")
        changed = changed_files() if paths is None else {path for path in paths.split(",") if path}
        run = last_full_run(config.rootpath)
        config.stash[_ROOMS] = set(rooms_to_run(nearest_tests(changed), run, *most_s))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    rooms = node.config.stash[_ROOMS]
    node.workerinput[_TO_A_PROCESS] = None if rooms is None else sorted(rooms)


def rooms_to_run(near: Mapping[str, int], run: FullRun, touched_s: float, near_s: float) -> Iterator[str]:
    """Yield the files whose slow cases run: the nearest, as long as their seconds are not used up.

    near: files by their distance from what changed, the nearest first. touched_s: seconds for those that
    import it themselves, or of which nothing is known; near_s: with those that import it at some depth.
    """
    used_s = 0.0
    for file, distance in near.items():
        most_s = touched_s if distance in (0, 1, EVERYWHERE) else near_s
        if (room_s := run.rooms_s.get(file, 0.0)) + used_s <= most_s:
            used_s += room_s
            yield file


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out long cases, and slow ones of other rooms, unless a run chooses by markers (`-m long`)."""
    if config.getoption("markexpr"):
        return
    left_out, kept = {"long": 0, "slow": 0}, []
    run = last_full_run(config.rootpath)
    for item in items:
        if item.get_closest_marker("long"):
            left_out["long"] += 1
        elif _is_left_out(item, config.stash[_ROOMS], run):
            left_out["slow"] += 1
        else:
            kept.append(item)
    config.stash[_LEFT_OUT] = left_out
    items[:] = kept


def _is_left_out(item: pytest.Item, rooms: set[str] | None, run: FullRun) -> bool:
    if rooms is None or item.nodeid.partition("::")[0] in rooms or item.get_closest_marker("promise"):
        return False
    return run.seconds(item.nodeid) is not None


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # this is one of several processes
        output[_OF_A_PROCESS] = session.config.stash.get(_LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Each process has collected all tests, and left out the same."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get(_OF_A_PROCESS, {})


def pytest_unconfigure(config: pytest.Config) -> None:
    left_out = config.stash.get(_LEFT_OUT, {})
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not reporter or config.getoption("collectonly") or not any(left_out.values()):
        return
    num_passed = len(reporter.stats.get("passed", ()))
    reporter.write_line(
        f"{num_passed} passed; left out: {left_out['slow']} slow cases far from what changed "
        f"(`make test-all`), {left_out['long']} long ones (`make test-long`)"
    )
