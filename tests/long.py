"""Cases that are breadth, marked `long`: one more of what another case shows. `make test-long` runs them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest


def long_but(cases: Iterable[Any], *short: Any) -> list[Any]:
    """Return the cases of a parametrized test, `long` but for those named."""
    cases = list(cases)
    assert all(case in cases for case in short), f"of {short} some are no cases"
    return [case if case in short else pytest.param(case, marks=pytest.mark.long) for case in cases]


def examples(most: int) -> int:
    """Return how many examples a property test tries: all in CI, a third of them elsewhere."""
    return most if "CI" in os.environ else most // 3
