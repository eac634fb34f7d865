"""Run jobs with the section `until`: add rows with new seeds, depending on how many clips pass.

    table -> groups -> chosen/, tables of rows with seeds -> the output -> records: pass or not -> more rows
      -> which clips are accepted: columns of the records, by scores/

The rows that are asked for depend on the time of judgements; the accepted ones do not (`acceptance.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from framefleet.api import JobRunner, RunJob, Scope
from framefleet.api.errors import JobError
from framefleet.jobs.doors import inner_outputs_of
from framefleet.plugins.until.names import UNTIL

if TYPE_CHECKING:
    from framefleet.api.commands import Watch
    from framefleet.api.jobs import Job, Summary
    from framefleet.plugins.forecast.job_plan import JobPlan, PlanOptions, PlanRun


class UntilRunner(JobRunner):
    section = UNTIL
    order = 200  # after drafts, since drafts are judged, and the winners rendered in full

    def render(self, job: Job, watch: Watch, scope: Scope, *, run: RunJob) -> Summary:
        """Render as `JobRunner.render` does. scope.only: add no rows, e.g. for `retry`."""
        if inner_outputs_of(job):  # rows of the inner output are judged, and the job's chosen among them
            return run(job, watch, scope)
        _check_limit(scope.limit)
        summary: Summary | None = None
        while True:  # again if answers of judges came after the last row
            ended, is_short = self._render(job, watch, scope, run)
            summary = summary + ended if summary else ended
            if not is_short or ended.over_budget:
                return summary
            if job.budget.per == "run":
                scope = replace(scope, spent=ended.spent + scope.spent if scope.spent else ended.spent)

    def _render(self, job: Job, watch: Watch, scope: Scope, run: RunJob) -> tuple[Summary, bool]:
        """Return how a run ended, and whether to ask for more rows now that all answers are there."""
        from framefleet.api.jobs import below, store_of_job
        from framefleet.plugins.until.candidates import Candidates
        from framefleet.plugins.until.marks import marks_lock

        candidates = Candidates(job, watch, scope.table)
        try:
            rows = candidates.resume()
            rows += candidates.ask(0) if scope.only is None else []
            watch.say(f"until: {candidates.section}; groups: {len(candidates.groups):,}")
            for line in candidates.survey.invalid_lines():
                watch.say(f"left out: {line}")

            def more(num_rows: int, heed: Callable[[], None]) -> str | None:
                nonlocal candidates
                candidates, rows = candidates.take_added(heed)
                candidates.list_left_out()
                candidates.read()
                rows += candidates.ask(num_rows)
                candidates.write_acceptance()
                if not any(group.num_pending for group in candidates.groups):
                    candidates.write_marks(lock)  # before this run's pages are written
                return candidates.write(rows) if rows else None

            def stays() -> bool:
                may_ask = any(group.num_needed and group.room > 0 for group in candidates.groups)
                return scope.stays() or (scope.only is None and may_ask)

            with marks_lock(store_of_job(job)) as lock:
                place, on_start = below(job, candidates.write(rows)), candidates.list_left_out
                ended = run(
                    job, watch, replace(scope, table=place, more=more, on_start=on_start, stays=stays)
                )
                candidates.read(anew=True)
                candidates.write_marks(lock)
            num_short, num_invalid = candidates.write_acceptance().num_short, candidates.survey.num_invalid
            ended = replace(ended, num_short=num_short, num_invalid=num_invalid)
            return ended, scope.only is None and bool(candidates.ask(0))
        finally:
            candidates.close()

    def plan(
        self, job: Job, watch: Watch, wanted: PlanOptions, *, run: PlanRun, table: str | None = None
    ) -> JobPlan:
        from framefleet.plugins.until.acceptance import num_expected, pass_rate
        from framefleet.plugins.until.candidates import Candidates
        from framefleet.plugins.until.plan import UntilPlan

        if inner_outputs_of(job):
            return run(job, watch, wanted, table=table)
        _check_limit(wanted.limit)
        with (
            closing(Candidates(job, watch, table)) as candidates,
            tempfile.TemporaryDirectory(prefix="framefleet-") as folder,
        ):
            rows, groups, section = candidates.resume(), candidates.groups, candidates.section
            num_judged, rate = sum(group.num_judged for group in groups), pass_rate(groups, section.rate)
            for at, group in enumerate(groups):
                rows += candidates.extend(at, num_expected(group, rate) - len(group.outcomes))
            place = candidates.write_to(Path(folder, "rows.parquet"), rows)
            planned = run(job, watch, wanted, table=str(place))
            survey = candidates.survey
            planned = replace(
                planned,
                num_rows=planned.num_rows + survey.num_invalid,
                num_invalid=survey.num_invalid,
                invalid=tuple(survey.invalid_lines()),
            )
            return UntilPlan.of(
                planned,
                until=str(section),
                num_groups=len(groups),
                rate=rate if num_judged or section.rate else None,
                num_judged=num_judged,
            )

    def check_added(self, job: Job, watch: Watch, file: str) -> None:
        from framefleet.plugins.until.candidates import Candidates

        Candidates(job, watch, added=file).close()

    def table(self, job: Job) -> str | None:
        from framefleet.api.jobs import below, store_of_job
        from framefleet.plugins.until.acceptance import read_acceptance

        if inner_outputs_of(job) or not (acceptance := read_acceptance(store_of_job(job))):
            return None
        return below(job, acceptance.table)


def _check_limit(limit: int | None) -> None:
    if limit is not None:
        raise JobError("limit: the job has `until`, which decides the number of rows", "leave it out")
