"""What `plan` counts for published models, at their real sizes, next to what people report of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.long import long_but
from tools.memory_reports import REPORTS, counted, page

MOST = 0.15


@pytest.mark.parametrize("index", long_but(range(len(REPORTS)), 6))  # Wan 2.1 1.3B
def test_what_is_counted_is_within_15_percent_of_what_people_report(index: int) -> None:
    report = REPORTS[index]
    number = next(float(word) for word in report.reported.split() if word[0].isdigit())
    footprint = counted(report.model, report.size, report.vae_tiling)
    assert abs(footprint.peak_gb(report.offload) / number - 1) <= MOST


@pytest.mark.long
def test_the_page_of_reports_is_as_the_command_prints_it() -> None:
    assert Path("docs/memory.md").read_text() == page()
