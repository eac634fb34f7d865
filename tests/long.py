"""Cases that are breadth, marked `long`: one more of what another case shows. `make test-long` runs them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest


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
