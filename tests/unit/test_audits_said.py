"""What status, report and replay make of what drivers and records say of audits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import framefleet
from framefleet import Summary
from framefleet.cluster.driver.progress import AuditFigures, LackingColumn
from framefleet.jobs.doors import Scope
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.command import ending_lines
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.metrics import BATCH_SIZES, ROW_OUTCOMES, WORKERS
from framefleet.pipeline.render.audit.verdict import EQUAL, NOT_COMPARED, not_compared, with_remark
from framefleet.plugins.forecast.command import audits_line
from framefleet.plugins.forecast.job_plan import AuditPlan
from framefleet.plugins.keep.replay.replay import environment_differences
from framefleet.plugins.pages.report.page import page_of
from framefleet.plugins.pages.report.report import report_of
from framefleet.plugins.until.runner import UntilRunner
from tests.commands import command
from tests.outputs import UNDER_WAY, write_driver, write_output
from tests.rows import record

ROWS = [record(number) for number in range(40)]
FIGURES = AuditFigures(num_equal=4, num_unaudited=16, most_wrong=10)


def test_what_drivers_said_is_added_up_and_rows_of_which_none_spoke_may_all_be_wrong(tmp_path: Path) -> None:
    store = write_output(tmp_path, ROWS)
    assert framefleet.status(str(tmp_path)).audits is None, "nothing is known"
    told = replace(UNDER_WAY, done=18, audits=FIGURES)
    write_driver(store, 1, progress=told, ended=True)
    write_driver(store, 2, progress=None, ended=True)  # of an earlier version, or killed at once
    write_driver(store, 3, progress=told, ended=True)
    assert framefleet.status(str(tmp_path)).audits == AuditFigures(
        num_equal=8, num_unaudited=2 * 16 + 4, most_wrong=2 * 10 + 4
    )
    line = "audit: 8 of 40 rows compared: all equal, too few for an estimate "
    line += "(to compare more, set `audit: {at_most: 0.01}`)"
    assert line in command("status", tmp_path).stdout.splitlines(), "in a pipe a line is as long as it is"
    assert json.loads(command("status", tmp_path, "--json").stdout)["audits"]["most_wrong"] == 24
    for figures in (replace(FIGURES, most_wrong=-5), replace(FIGURES, num_equal=10**15)):
        store = write_output(tmp_path / str(figures.num_equal), ROWS)
        write_driver(store, progress=replace(UNDER_WAY, audits=figures), ended=True)
        assert framefleet.status(store.url_of("")).audits is None, "no driver can have said that"


def test_a_report_tells_audits_and_its_environments_are_of_places(tmp_path: Path) -> None:
    audited = [with_remark(row, EQUAL if n < 3 else not_compared(n)) for n, row in enumerate(ROWS)]
    store = write_output(tmp_path, audited)
    write_driver(store, progress=replace(UNDER_WAY, before=0, done=40, audits=FIGURES), ended=True)
    found = report_of(store)
    assert [one.rows for one in found.environments] == [40]
    assert "audit" not in found.environments[0].values
    assert found.audits.by_remark == {EQUAL: 3, NOT_COMPARED: 37}
    assert (found.audits.said, found.audits.wrong_share) == (FIGURES, 0.25)
    assert "25 %" in page_of(found)
    assert json.loads(found.to_json())["audits"]["said"]["num_equal"] == 4


def test_what_is_known_of_a_row_is_no_difference_of_environments() -> None:
    where = json.dumps({"dtype": "fp32", "device": "cpu", "threads": 1})
    then, now = (replace(record(0), environment=where) for _ in range(2))
    assert environment_differences(with_remark(then, EQUAL), now) == ()
    assert environment_differences(with_remark(then, EQUAL), with_remark(now, not_compared(3))) == ()
    other = replace(now, environment=where.replace("1}", "2}"))
    assert environment_differences(with_remark(then, EQUAL), other) == (("threads", "1", "2"),)


def test_a_job_ends_with_how_many_rows_may_be_wrong(tmp_path: Path) -> None:
    store = write_output(tmp_path, ROWS)
    summary = Summary(done=40, failed=0, elapsed_s=1.0, mean_batch=2.0, audits=FIGURES)
    said = "4 of 40 rows compared: all equal"
    said += "; with 95 % confidence, at most 10 of all rows (25 %) may differ"
    assert f"audit: {said}" in ending_lines(summary, store)
    found = ending_lines(replace(summary, apart=("a kind",)), store)
    assert f"audit: of other kinds, {said}" in found
    alone = ending_lines(replace(summary, audits=AuditFigures()), store)
    assert "audit: no audits were needed: each row was rendered by a plain call" in alone
    odd = ending_lines(replace(summary, unrepeatable=("a kind",)), store)
    assert not any("plain calls from now on" in line for line in odd)
    off = ending_lines(replace(summary, audits=None), store)
    assert not any(line.startswith("audit") for line in off)


def test_a_job_of_several_runs_ends_with_what_each_of_them_found(tmp_path: Path) -> None:
    """Rows that `until` adds once all answers are there are rendered by a run of their own."""
    sizes = {ROW_OUTCOMES.key("done"): 36.0, BATCH_SIZES.key(): 72.0, WORKERS.key("idle"): 1.0}
    lacking = LackingColumn(section="scores", num=2, example="row 1: no")
    batched = Summary(
        done=36, failed=3, elapsed_s=9.0, mean_batch=2.0, figures=sizes, audits=FIGURES, before=5,
        apart=("a",), unrepeatable=("b",), unused=("machine 1: broken",), lacking={"warmth": lacking},
    )  # fmt: skip
    alone = Summary(
        done=4, failed=1, elapsed_s=1.0, mean_batch=1.0, figures={name: 4.0 for name in sizes},
        audits=AuditFigures(), before=41, apart=("a", "c"), lacking={"warmth": lacking, "grain": lacking},
        unused=("machine 1: broken",), num_short=2,
    )  # fmt: skip
    runs = iter([(batched, True), (alone, False)])

    class Runner(UntilRunner):
        def _render(self, *_: object) -> tuple[Summary, bool]:
            return next(runs)

    until = {"accepted": 1, "at_most": 9, "where": "seed > 0"}
    job = load_job({"table": "t.csv", "output": str(tmp_path / "out"), "model": "m", "until": until})
    ended = Runner().render(job, Callback(), Scope(), run=None)  # type: ignore[arg-type]
    assert ended == Summary(
        done=40, failed=1, elapsed_s=10.0, mean_batch=76 / 40, audits=FIGURES, before=5, num_short=2,
        figures={ROW_OUTCOMES.key("done"): 40.0, BATCH_SIZES.key(): 76.0, WORKERS.key("idle"): 4.0},
        apart=("a", "c"), unrepeatable=("b",), unused=("machine 1: broken",),
        lacking={"warmth": replace(lacking, num=4), "grain": lacking},
    )  # fmt: skip
    lines = ending_lines(ended, write_output(tmp_path, ROWS))
    assert any(line.startswith("audit: of other kinds, 4 of 40 rows compared") for line in lines)
    off = replace(batched, audits=None) + replace(alone, audits=None)
    assert off.audits is None, "a job without audits says nothing of them"


def test_a_plan_says_no_bound_that_few_audits_would_leave() -> None:
    line = audits_line(AuditPlan(num_audits=1.0, share=0.25, most_wrong=3, limit=None), 4)
    assert line.startswith("audits: perhaps one row is rendered again, alone, as a check")
    assert line.endswith("(audit.share does not limit them)")
    limited = AuditPlan(num_audits=5.0, share=0.02, most_wrong=200, limit=0.02, is_limited=True)
    assert audits_line(limited, 240).startswith("audits: up to 5 of 240 rows (2.0 %) are rendered again")
    assert "about 5 of 240" in audits_line(replace(limited, is_limited=False), 240)
    line = audits_line(AuditPlan(num_audits=40.0, share=0.4, most_wrong=3, limit=None), 100)
    assert line.endswith("if all are equal, at most 3 of all rows (3.0 %) may differ, with 95 % confidence")
