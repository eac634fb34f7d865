"""Long tests are left out, which is said last, by one process and by several."""

from __future__ import annotations

import pytest

pytest_plugins = "pytester"
TESTS = """
import pytest
from tests.long import long_but

@pytest.mark.parametrize("name", long_but("abc", "b"))
def test_it(name): ...
"""
LAST = (
    "1 passed; 2 tests were left out: "
    "`make test-long` runs the long ones, `make test CI=1` those of load and faults"
)


@pytest.fixture(autouse=True)
def _tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FRAMEFLEET_TESTS_WITHOUT_CI", "FRAMEFLEET_TESTS_WITHOUT_PERIPHERY"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini("[pytest]\nmarkers =\n  long: one more case\n  ci: takes minutes")
    pytester.makeconftest("from tests.long import *")
    pytester.makepyfile(TESTS)


@pytest.mark.parametrize("options", [[], ["-n1"]], ids=["one process", "processes"])
def test_the_last_line_says_how_many_were_left_out(pytester: pytest.Pytester, options: list[str]) -> None:
    ended = pytester.runpytest_inprocess(*options)
    ended.assert_outcomes(passed=1)
    assert ended.outlines[-1] == LAST


def test_who_asks_for_the_long_ones_gets_them_and_no_others(pytester: pytest.Pytester) -> None:
    ended = pytester.runpytest_inprocess("-m", "long")
    ended.assert_outcomes(passed=2, deselected=1)
    assert "left out" not in ended.stdout.str()


def test_a_name_that_is_no_case_is_an_error() -> None:
    from tests.long import long_but

    with pytest.raises(AssertionError, match="are no cases"):
        long_but("abc", "d")


@pytest.mark.parametrize(("ci", "num_passed"), [(None, 1), ("1", 2)], ids=["daily", "in CI"])
def test_what_takes_minutes_runs_in_ci(
    ci: str | None, num_passed: int, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci) if ci else monkeypatch.delenv("CI", raising=False)
    tests = TESTS.replace('"b")', '"b", in_ci="c")')
    pytester.makepyfile(tests)
    pytester.makeini("[pytest]\ntestpaths = .\nmarkers =\n  long: one more case\n  ci: takes minutes")
    pytester.runpytest_inprocess().assert_outcomes(passed=num_passed)


def test_the_periphery_is_left_out_though_it_is_named_among_the_paths(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMEFLEET_TESTS_WITHOUT_PERIPHERY", "1")
    pytester.makeini(
        "[pytest]\ntestpaths = unit periphery\nmarkers =\n  long: one more case\n  ci: takes minutes"
    )
    for folder in ("unit", "periphery"):
        pytester.mkdir(folder).joinpath(f"test_{folder}.py").write_text("def test_it(): ...\n")
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
