"""Whatever a file says of batches, every row gets the bits that it has alone."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings, strategies as st

from framefleet import Batching
from framefleet.pipeline.render.findings import Findings
from framefleet.pipeline.render.findings_storage import BatchSize, Found, Pins, Places
from framefleet.pipeline.render.fused.batcher import Batcher
from framefleet.pipeline.render.fused.forwards import Forwards
from tests.long import examples
from tests.unit.denoising import alone, render, steps
from tests.unit.test_remembered import Hopeless, Rounding

ROWS = st.integers(2, 5)
NAMES = st.lists(st.sampled_from(["shift", "", "weight", "shift.forward", "no"]), max_size=3)
AXES = st.sampled_from([[0, -2, None], [0, 0, None], [None] * 3, [-1, 7, 10**30], []])
SIZES = st.builds(
    BatchSize,
    rows=ROWS,
    seconds=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    verdict=st.sampled_from(["pays", "slow", "inexact"]),
)
PINS = st.builds(Pins, rows=ROWS, loras=NAMES, differing=NAMES, axes=AXES, modules=NAMES)
PLAIN_PINS = st.builds(
    Pins, rows=ROWS, loras=st.just([]), differing=st.just([]), axes=st.just([0, -2, None]), modules=NAMES
)
FOUND = st.builds(Found, sizes=st.lists(SIZES, max_size=5), pins=st.lists(PINS | PLAIN_PINS, max_size=6))


class Lying(Places):
    """Says the same of every shape, and keeps nothing."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self._said = found

    def read(self, name: str) -> Found:
        return self._said

    def keep(self, name: str, found: Found) -> None: ...


@given(found=FOUND, is_hopeless=st.booleans())
@settings(max_examples=examples(30), deadline=None)
def test_no_file_changes_a_bit(found: Found, is_hopeless: bool) -> None:
    denoiser = Hopeless() if is_hopeless else Rounding()
    findings = Findings(Lying(found), "here")
    batching = Batching(max_rows=5, min_gain=1e-9)
    batcher = Batcher(Forwards({"unet": denoiser}, batching, findings=findings))
    starts = [2.5 + row for row in range(5)]
    tasks = render(batcher, *(lambda start=start: steps(denoiser, start) for start in starts))
    assert [task.value for task in tasks] == [alone(start) for start in starts]
    assert not Path(os.environ["FRAMEFLEET_CACHE"], "probes").exists()
