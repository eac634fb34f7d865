"""Metrics are declared once: documents and figures follow."""

from __future__ import annotations

from framefleet.pipeline.metrics import METRICS, ROW_OUTCOMES, STORE_RETRIES, Counts, added
from tests.jobs import ROOT


def test_the_page_lists_every_metric_as_it_is_declared() -> None:
    lines = (ROOT / "docs/monitoring.md").read_text().splitlines()
    found = [line for line in lines if line.startswith("| `framefleet_")]
    assert found == [
        f"| `framefleet_{metric.name}{'_total' if metric.is_total else ''}` | "
        f"{f'`{metric.label}` ' if metric.label else ''}| {metric.help} |"
        for metric in METRICS.values()
    ]


def test_figures_of_several_add_up() -> None:
    several = [Counts(), Counts()]
    for number, counts in enumerate(several):
        counts.add(ROW_OUTCOMES, label="done")
        counts.add(ROW_OUTCOMES, number, label="failed")
        counts.add(STORE_RETRIES, 2)
    figures = added(*(counts.figures() for counts in several))
    assert figures == {"rows/done": 2, "rows/failed": 1, "store_retries": 4}
    assert ROW_OUTCOMES.by_label(figures) == {"done": 2, "failed": 1}
    assert (ROW_OUTCOMES.total(figures), STORE_RETRIES.total(figures)) == (3, 4)
