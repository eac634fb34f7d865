"""Metrics are declared once: documents and figures follow."""

from __future__ import annotations

from framefleet.pipeline.metrics import (
    CLIP_BYTES,
    JOB_ROWS,
    METRICS,
    ROW_OUTCOMES,
    SPENT_MONEY,
    STORE_RETRIES,
    Counts,
    added,
    of_runs,
)
from tests.jobs import ROOT


def test_the_page_lists_every_metric_as_it_is_declared() -> None:
    lines = (ROOT / "docs/report.md").read_text().splitlines()
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


def test_what_holds_at_a_moment_does_not_add_up_over_runs() -> None:
    own = {ROW_OUTCOMES.key("done"): 2.0, CLIP_BYTES.key(): 10.0}
    runs = [
        own | {JOB_ROWS.key("done"): 2.0, JOB_ROWS.key("leased"): 1.0, SPENT_MONEY.key(): 3.0},
        own | {JOB_ROWS.key("done"): 4.0, SPENT_MONEY.key(): 5.0},
    ]
    together = {"rows/done": 4.0, "clip_bytes": 20.0, "job_rows/done": 4.0, "spent_money": 5.0}
    assert of_runs(*runs) == together
    assert (of_runs(runs[1]), of_runs()) == (runs[1], {})
