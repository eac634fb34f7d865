"""What rows cost, in calls: each way to render makes those of plain calls, and encodes nothing twice."""

from __future__ import annotations

import pytest
import torch

from tests.long import long_but
from tools.benchmarks.counts import JOBS, WAYS, counted

ALWAYS = ("alone", "batched", "batched, fast", "cached steps", "own recipe", "image to video")
IN_CI = ("drafts, then full", "extend", "refine", "keyframes", "several models")


@pytest.mark.daily(4)
@pytest.mark.skipif(torch.cuda.is_available(), reason="counts waits on the stand-in for a GPU")
@pytest.mark.parametrize("way", long_but([*WAYS, *JOBS], *ALWAYS, in_ci=IN_CI))
def test_rows_cost_what_plain_calls_do_and_nothing_twice(way: str) -> None:
    (count,) = counted([way])
    assert list(count.excess()) == []
    assert count.calls.num_forwards and count.calls.texts and count.calls.num_decodes
