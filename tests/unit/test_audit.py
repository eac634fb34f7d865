"""Which rows are audited, what audits say in which words, and what jobs may ask of them; none is rendered."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

import framefleet
from framefleet import Audit, Batching, JobError, Request, Summary
from framefleet.cluster.driver.progress import AuditFigures, LackingColumn
from framefleet.jobs.doors import Scope
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.command import ending_lines
from framefleet.jobs.show.watch import Callback, audit_line, share_text
from framefleet.pipeline.metrics import BATCH_SIZES, ROW_OUTCOMES, WORKERS
from framefleet.pipeline.render.audit.schedule import MAX_KINDS, AuditSchedule, Odds
from framefleet.pipeline.render.audit.verdict import (
    EQUAL,
    NOT_COMPARED,
    Verdict,
    kind_of,
    not_compared,
    verdict_of,
    with_remark,
)
from framefleet.plugins.forecast.command import audits_line
from framefleet.plugins.forecast.job_plan import AuditPlan
from framefleet.plugins.forecast.plan import plan_audits
from framefleet.plugins.keep.replay.replay import environment_differences
from framefleet.plugins.pages.report.page import page_of
from framefleet.plugins.pages.report.report import report_of
from framefleet.plugins.until.runner import UntilRunner
from tests.commands import command
from tests.outputs import UNDER_WAY, write_driver, write_output
from tests.rows import record
from tools.benchmarks.audits_simulated import RATES, jobs_of

ODDS = Odds(lowest=0.01)
JOB = {"table": "t.csv", "output": "out", "model": "m"}


def _due(odds: Odds, kinds: list[str]) -> list[int]:
    schedule = AuditSchedule(odds)
    return [n for n, kind in enumerate(kinds) if schedule.is_due(kind, f"{n:032x}")]


def test_rows_are_picked_by_chance_more_often_at_first_and_the_same_ones_each_time() -> None:
    due = _due(ODDS, ["a"] * 20_000)
    assert due == _due(ODDS, ["a"] * 20_000)
    assert due[0] == 0, "an early look at each kind"
    assert 150 < sum(n >= 100 for n in due) < 250, "one in a hundred, in the long run"
    assert ODDS.expected(20_000) == pytest.approx(len(due), rel=0.25)
    elsewhere = AuditSchedule(ODDS)
    late = {n for n in range(20_000, 40_000) if elsewhere.is_due("a", f"{n - 20_000:032x}")}
    assert len({n + 20_000 for n in due} & late) > 150, "by their row_ids, not by their places"
    assert AuditSchedule(None).is_due("a", "0" * 32) is False
    assert _due(Odds(lowest=1.0), ["a", "b", "a"]) == [0, 1, 2]


def test_kinds_beyond_the_first_are_counted_together() -> None:
    kinds = [f"kind {number}" for number in range(MAX_KINDS + 1000)]
    due = _due(ODDS, kinds)
    assert due[:MAX_KINDS] == list(range(MAX_KINDS)), "the first row of each"
    assert len(due) - MAX_KINDS < 40, "of the others as of one kind"
    schedule = AuditSchedule(ODDS)
    assert schedule.is_due("a", "0" * 32) and schedule.is_due("b", "1" * 32)
    schedule.owe("a")  # a row could not be audited, which is made up for once
    assert [schedule.pays("b"), schedule.pays("a"), schedule.pays("a")] == [False, True, False]


def test_no_more_rows_are_said_to_be_wrong_than_audits_would_miss() -> None:
    """Whichever rows are wrong: of one more than the bound, audits miss all in less than 5 % of cases."""
    draw = random.Random(3)
    for _ in range(60):
        odds = Odds(lowest=draw.choice([0.001, 0.01, 0.1, 0.4, 1.0]), young=draw.choice([1.0, 2.5, 30.0]))
        counts = [draw.choice([1, 3, 40, 500, 7000]) for _ in range(draw.randint(1, 5))]
        bound = odds.most_wrong(counts)
        missed = sorted(1 - odds.of(n) for count in counts for n in range(1, count + 1))
        worst = missed[::-1]
        if bound < len(worst):
            assert math.prod(worst[: bound + 1]) <= 0.05 + 1e-9, (odds, counts)
        if odds.young == 1.0 and bound > 1:
            assert math.prod(worst[: round(bound * 0.9)]) > 0.05, "and no far less"


def test_bounds_are_those_of_the_docs() -> None:
    assert Odds(lowest=0.001).most_wrong([100_000]) == 2994  # 3 / 0.001, as odds are of whole rows
    assert Odds(lowest=0.001).most_wrong([50_000, 50_000]) == 2994, "of all kinds together"
    assert Odds(lowest=0.001).most_wrong([100]) == 94
    assert Odds(lowest=0.001).most_wrong([1, 1, 1]) == 0, "each was compared"
    found = [Odds(lowest=0.001).most_wrong([100_000], num_differing=count) for count in range(3)]
    assert found == [2994, 4741, 6292]


@pytest.mark.parametrize("at_most", [0.5, 0.1, 0.01, 0.001])
def test_a_share_that_is_asked_for_is_what_is_said(at_most: float) -> None:
    audit = Audit(every=10_000, at_most=at_most)
    for num in (1, 7, 100, 12_345):
        assert audit.odds(num).most_wrong([num]) <= at_most * num
        assert audit.odds(num).most_wrong([num - num // 3, num // 3]) <= at_most * num
        assert audit.odds().most_wrong([num]) <= at_most * num  # without end


def test_what_is_known_of_a_kind_is_said_of_that_kind_alone() -> None:
    schedule = AuditSchedule(ODDS)
    for n in range(2000):
        schedule.is_due("a" if n % 2 else "b", f"{n:032x}")
    assert schedule.most_wrong(num_differing=0) == 298
    schedule.settled.add("a")  # plain calls from now on
    assert schedule.most_wrong(num_differing=1) == 472
    schedule.miss("b")  # there was no memory for its plain call
    assert schedule.most_wrong(num_differing=1) == 1000, "nothing is known of b"


def test_a_kind_is_recipe_second_models_and_shape() -> None:
    sizes = {"height": 16, "width": 32, "num_frames": 5, "num_inference_steps": 4}
    assert kind_of(Request(arguments={**sizes, "prompt": "a"})) == "generate 5 x 16 x 32"
    named = {"image_model": {"name": "flux", "digest": "0" * 64}}
    assert kind_of(Request(arguments=sizes | named, recipe="my:own")) == "my:own flux 5 x 16 x 32"
    assert kind_of(Request()) == "generate"


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("clip", "clip", "equal"),
        ("other", "other", "differs"),
        (None, None, "differs"),
        ("other", "clip", "unrepeatable"),
        ("other", "third", "unrepeatable"),
        (None, "clip", "unrepeatable"),
    ],
)
def test_two_plain_calls_say_whose_fault_it_is(
    first: str | None, second: str | None, verdict: Verdict
) -> None:
    assert verdict_of(("clip",), first and (first,), second and (second,)) == verdict


def test_a_job_says_how_often() -> None:
    assert load_job(JOB).audit.every == Audit().every == 1000
    assert load_job(JOB | {"audit": {"every": 0}}).audit.every == 0
    for values in ({"every": 1.5}, {"often": 3}, 7, {"at_most": -0.1}, {"at_most": 1.5}):
        with pytest.raises(JobError, match="audit"):
            load_job(JOB | {"audit": values})
    for refused, said in (
        ({"every": -1}, "audit every is -1"),
        ({"at_most": 0}, "audit at_most is 0(.|\n)*above 0"),
        ({"every": 0, "at_most": 0.1}, "audit at_most is set, and audit every is 0"),
    ):
        with pytest.raises(JobError, match=said):
            Audit(**refused)  # type: ignore[arg-type]
        with pytest.raises(JobError, match="audit"):
            load_job(JOB | {"audit": refused})


def test_a_bound_is_told_in_words_and_never_rounded_down() -> None:
    few = "too few for an estimate (to compare more, set `audit: {at_most: 0.01}`)"
    all_equal = AuditFigures(num_equal=107, num_unaudited=99_893, most_wrong=2994)
    bound = "with 95 % confidence, at most 2,994 of all rows (3.0 %) may differ"
    assert audit_line(all_equal, 100_000) == f"107 of 100,000 rows compared: all equal; {bound}"
    said = audit_line(AuditFigures(num_equal=5, num_unaudited=95, most_wrong=94), 100)
    assert said == f"5 of 100 rows compared: all equal, {few}"
    assert audit_line(AuditFigures(), 7) == "no audits were needed: each row was rendered by a plain call"
    kinds = {"generate 5 x 16 x 16": True, "refine": False}
    figures = AuditFigures(num_equal=1, num_unaudited=25, most_wrong=25, kinds=kinds)
    again = AuditFigures(kinds=dict.fromkeys([*kinds, "generate 9 x 16 x 16"], False))
    said = audit_line(figures + again, 26)
    assert said.startswith(f"1 of 26 rows compared: equal, {few}")
    assert said.endswith("; no row of 2 of the 3 kinds (recipe, models, sizes) was compared, e.g. refine")
    shares = [share_text(share) for share in (0, 0.02991, 1.0, 0.00101, 1e-7)]
    assert shares == ["0 %", "3.0 %", "100 %", "0.11 %", "0.000010 %"]


def test_a_plan_says_how_many_audits_there_will_be() -> None:
    shapes = {"5 x 16 x 16": 90_000, "9 x 16 x 16": 10_000}
    found = plan_audits(Audit(), Batching(), shapes, num_pending=100_000)
    assert found is not None and found.num_audits == pytest.approx(113, abs=1)
    # Rows that the share passes over count too.
    assert (round(found.share, 5), found.most_wrong) == (0.00113, 3567)
    more = plan_audits(Audit(), Batching(), shapes, num_pending=100_000, num_others=50)
    assert more is not None and more.most_wrong == found.most_wrong + 50
    asked = plan_audits(Audit(at_most=0.001), Batching(), shapes, num_pending=100_000)
    assert asked is not None and (asked.most_wrong, round(asked.num_audits, -2)) == (100, 2900)
    assert plan_audits(Audit(), Batching(max_rows=1), shapes, num_pending=9) is not None
    none = ((Audit(every=0), Batching(), 9), (Audit(), Batching(mode="fast"), 9), (Audit(), Batching(), 0))
    for audit, batching, num_pending in none:
        assert plan_audits(audit, batching, shapes, num_pending=num_pending) is None


@pytest.mark.parametrize("rate", RATES)
def test_what_a_summary_says_holds_in_simulated_jobs(rate: float) -> None:
    for at_most, is_late in ((None, False), (None, True), (0.1, False), (0.1, True)):
        jobs = list(jobs_of(150, rate, Audit(every=50, at_most=at_most), 60, is_late=is_late))
        assert sum(job.holds for job in jobs) >= 57, "95 of 100"
        for job in jobs:
            assert job.num_left == (0 if job.is_noticed else job.num_wrong), "all are taken back, or none"
    assert all(job.figures.most_wrong <= 15 for job in jobs)


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
