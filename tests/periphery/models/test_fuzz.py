"""Bad input of every kind is accepted, or refused with a hint; `python -m tools.fuzz` tries many more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tools.fuzz.fuzz import fuzz
from tools.fuzz.kinds import KINDS

WELL_WRITTEN = {"table dialects"}  # tables as other programs write them, of which few are refused


@pytest.mark.parametrize("per_kind", [3, pytest.param(12, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", list(KINDS))
def test_bad_input_is_accepted_or_refused_with_a_hint(kind: str, per_kind: int, tmp_path: Path) -> None:
    answers: Counter[int | None] = Counter()
    for result in fuzz(2026, range(per_kind), tmp_path, kinds=[kind]):
        assert result.defect is None, f"{result.number}: {result.told}\n{result.outcome.printed}"
        answers[result.outcome.code] += 1
    assert answers[2] or kind in WELL_WRITTEN, "nothing was bad enough to be refused"
