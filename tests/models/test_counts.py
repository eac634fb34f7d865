"""What rows cost, in calls: each way to render makes those of plain calls, and encodes nothing twice."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.long import long_but
from tools.benchmarks.counts import JOBS, WAYS, WITH_WAITS, measured, waits_of, with_picture

SHORT = (
    *("alone", "batched", "batched, fast", "cached steps", "own recipe", "image to video"),
    *("drafts, then full", "extend", "refine", "keyframes", "several models"),
)


@functools.cache
def waits() -> dict[str, int]:
    """Return those of all ways: the process that counts them takes longer to start than to count."""
    return waits_of([*WITH_WAITS])


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts waits on the stand-in for a GPU")
@pytest.mark.parametrize("way", long_but([*WAYS, *JOBS], *SHORT))
def test_rows_cost_what_plain_calls_do_and_nothing_twice(way: str, tmp_path: Path) -> None:
    folder = with_picture(tmp_path)
    count = JOBS[way](folder) if way in JOBS else measured(way, folder)
    count = replace(count, waits=waits()[way] if way in WITH_WAITS else None)
    assert list(count.excess()) == []
    assert count.calls.num_forwards and count.calls.texts and count.calls.num_decodes
