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
LAST = "1 passed; 2 long tests were left out: `make test-long` runs them"


@pytest.fixture(autouse=True)
def _tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRAMEFLEET_TESTS_WITHOUT_PERIPHERY", raising=False)
    pytester.makeini("[pytest]\nmarkers = long: one more case")
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
