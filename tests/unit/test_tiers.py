"""A run takes promises and quick cases, slow ones of rooms that changed, and says how many it left out."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.durations import FullRun, last_full_run
from tests.long import long_but
from tests.tiers import rooms_to_run

pytest_plugins = "pytester"
TESTS = """
import pytest
from tests.long import long_but

@pytest.fixture(scope="module")
def slow():
    import time
    time.sleep(1)

@pytest.mark.parametrize("name", long_but("abc", "b"))
def test_long(name): ...

def test_first(slow): ...
def test_second(slow): ...

@pytest.mark.promise("Its frames equal")
def test_promise(): ...
"""
CONFTEST = """
from tests.durations import pytest_fixture_setup, pytest_runtest_makereport
from tests.tiers import *
"""
SLOW = {"test_room.py": {"test_first": 3.0, "test_second": 2.0, "test_promise": 4.0}}


@pytest.fixture(autouse=True)
def _tests(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntestpaths = .\nmarkers =\n  long: breadth\n  promise: shown")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_room=TESTS)
    pytester.mkdir("tests")
    for words in ("init", "-c user.name=a -c user.email=a@b.c commit --allow-empty -m first"):
        subprocess.run(["git", *words.split()], cwd=pytester.path, check=True, capture_output=True)


@pytest.fixture
def _full_run(pytester: pytest.Pytester) -> None:
    run = {"commit": "0" * 40, "date": "2026-11-29", "slow_s": SLOW}
    (pytester.path / "tests/durations.json").write_text(json.dumps(run))


@pytest.mark.parametrize("options", [[], ["-n1"]], ids=["one process", "processes"])
def test_the_last_line_says_how_many_were_left_out(
    pytester: pytest.Pytester, options: list[str], _full_run: None
) -> None:
    ended = pytester.runpytest_inprocess("--changed=", *options)
    ended.assert_outcomes(passed=2)
    assert ended.outlines[-1] == (
        "2 passed; left out: 2 slow cases far from what changed (`make test-all`), "
        "2 long ones (`make test-long`)"
    )


@pytest.mark.parametrize(
    ("options", "num_passed"),
    [(["--all"], 4), (["test_room.py"], 4), (["-m", "long"], 2)],
    ids=["all", "a file that somebody named", "by markers"],
)
def test_slow_cases_run_for_who_asks(
    pytester: pytest.Pytester, options: list[str], num_passed: int, _full_run: None
) -> None:
    ended = pytester.runpytest_inprocess(*options)
    assert ended.parseoutcomes()["passed"] == num_passed


def test_a_full_run_writes_what_is_slow_and_counts_what_cases_share_for_each_and_once_for_all(
    pytester: pytest.Pytester,
) -> None:
    pytester.runpytest_inprocess("--all", "-n1").assert_outcomes(passed=4)
    run = last_full_run(pytester.path)
    slow_s = run.slow_s["test_room.py"]
    assert set(slow_s) == {"test_first", "test_second"}
    assert max(slow_s.values()) <= run.rooms_s["test_room.py"] < sum(slow_s.values())
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=pytester.path, capture_output=True, text=True)
    assert run.commit == head.stdout.strip()


def test_a_run_with_a_failure_leaves_the_file_as_it_is(pytester: pytest.Pytester, _full_run: None) -> None:
    pytester.makepyfile(test_more="def test_it(): assert False")
    pytester.runpytest_inprocess("--all").assert_outcomes(passed=4, failed=1)
    assert last_full_run(pytester.path).slow_s == SLOW


def test_the_nearest_rooms_run_as_long_as_there_is_time() -> None:
    run = FullRun(rooms_s={"own": 7.0, "dear": 9.0, "next": 3.0, "far": 1.0})
    near = {"own": 0, "quick": 1, "dear": 1, "next": 1, "far": 2}
    assert list(rooms_to_run(near, run, 10, 11)) == ["own", "quick", "next", "far"]
    assert list(rooms_to_run(near, run, 99, 11)) == ["own", "quick", "dear", "next"]


def test_a_name_that_is_no_case_is_an_error() -> None:
    with pytest.raises(AssertionError, match="are no cases"):
        long_but("abc", "d")
