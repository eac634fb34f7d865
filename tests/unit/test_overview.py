"""What Python shows of values with many fields: a few lines, and a small table in a notebook."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import framefleet
from framefleet import Request, Summary
from framefleet.cluster.driver.progress import AuditFigures
from tests.small_output import rendered
from tests.tiny import tiny


def test_a_summary_says_in_a_few_lines_what_became_of_the_rows() -> None:
    audits = AuditFigures(num_equal=3, num_unaudited=1000)
    figures = {f"figure{number}": 1.0 for number in range(50)}
    summary = Summary(done=1024, failed=2, elapsed_s=61.2, mean_batch=4.62, figures=figures, audits=audits)
    lines = "rows: 1,024 done, 2 failed", "time: 0:01:01", "mean batch: 4.6", "audits: 3 compared, equal"
    assert repr(summary).splitlines() == ["Summary", *(f"  {line}" for line in lines)]
    assert "audits: none" in repr(replace(summary, audits=AuditFigures(num_unaudited=9)))
    assert "  rows: 0 done, 0 failed; 20 done before" in repr(replace(summary, done=0, failed=0, before=20))


def test_a_notebook_gets_a_table_without_markup_of_others() -> None:
    summary = Summary(done=1, failed=0, elapsed_s=1.0, mean_batch=None, over_budget="<b>12 hours</b>")
    shown = summary._repr_html_()
    assert shown.count("<tr>") == 3
    assert "&lt;b&gt;12 hours" in shown


def test_what_functions_return_has_at_most_eight_lines(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    rendered(framefleet.Store(output), 8)
    [traced] = framefleet.trace(next((tmp_path / "out" / "clips").glob("*/*")), outputs=output)
    values: list[tuple[object, str]] = [
        (framefleet.status(output), "  rows: 8"),
        (framefleet.export(output, str(tmp_path / "to"), format="parquet"), "  rows: 8"),
        (framefleet.verify(output, files=True), "  read: the files of 8 rows"),
        (framefleet.score(output, ["sharpness"]), "  scored: 8 clips"),
        (framefleet.report(output), ""),
        (traced, ""),
        (framefleet.sheet(output, tmp_path / "sheet.png"), ""),
        (framefleet.repair(output, dry_run=True), ""),
        (framefleet.compact(output), ""),
    ]
    for value, line in values:
        lines = repr(value).splitlines()
        assert lines[0] == type(value).__name__ and line in repr(value)
        assert 2 <= len(lines) <= 8
        assert len(repr(value)) < 1000


def test_an_argument_that_is_no_field_of_a_request_is_shown_where_it_belongs() -> None:
    with pytest.raises(TypeError, match=r"Request\(arguments=\{'prompt': 'a fox'\}, seed=...\)"):
        Request(prompt="a fox", seed=1)  # type: ignore[call-arg]
    assert Request(arguments={"prompt": "a fox"}, seed=1).seed == 1


def test_a_plan_takes_rows_as_render_does_and_writes_nothing(tmp_path: Path) -> None:
    job = {"output": str(tmp_path / "out"), "model": str(tiny("sd"))}
    rows = [{"prompt": "a fox", "seed": 1}, {"prompt": "a cat", "seed": 2}, {"prompt": "a fox", "seed": 1}]
    plan = framefleet.plan(job, table=rows)
    assert (plan.num_rows, plan.counts.pending) == (3, 2)
    assert framefleet.plan(job, table=rows, limit=1).counts.pending == 1
    swept = framefleet.plan({**job, "sweep": {"guidance_scale": [1, 2]}}, table=rows)
    assert swept.counts.pending == 2 * plan.counts.pending
    misspelt = framefleet.plan(job, table=[{"prompt": "a fox", "negative_promt": "a cat"}])
    assert "'negative_promt' is not read; did you mean negative_prompt?" in repr(misspelt)
    assert not (tmp_path / "out").exists()
    lines = repr(plan).splitlines()
    assert lines[:3] == ["JobPlan", "  rows: 3: 0 invalid, 1 duplicate, 0 done", "  to render: 2"]
    assert len(lines) <= 8
