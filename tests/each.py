"""One check of many like cases, as one test that names every case it fails for."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import Any


def check_each(cases: Iterable[Any], check: Callable[[Any], object]) -> None:
    """Call `check` for each case. Raises AssertionError with all failures, each by its case."""
    failures = []
    for case in cases:
        try:
            check(case)
        except Exception:  # whatever it is, the other cases are checked too
            failures.append(f"{case}:\n{traceback.format_exc()}")
    assert not failures, "\n".join(failures)
