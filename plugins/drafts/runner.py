"""Run jobs with the section `draft`: drafts, then a choice among them, then the chosen rows in full.

    table -> drafts/, an inner output, with scores -> chosen/, a table of the chosen rows -> the output

Each step continues where it stopped, and knows nothing of the others: drafts are a job with other arguments,
the choice is a table, and the full rows are the rows of this table.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from framefleet.api import JobRunner, RunJob, Scope
from framefleet.api.errors import JobError, count_text
from framefleet.api.jobs import runners_of, table_of
from framefleet.plugins.drafts.plugin import DRAFTS, SECTION

if TYPE_CHECKING:
    from framefleet.api.commands import Watch
    from framefleet.api.jobs import Job, Summary
    from framefleet.plugins.forecast.job_plan import JobPlan, PlanOptions, PlanRun


class DraftRunner(JobRunner):
    section = SECTION
    order = 100  # last before rendering, so that other plugins choose among full rows

    def render(self, job: Job, watch: Watch, scope: Scope, *, run: RunJob) -> Summary:
        """Render as `JobRunner.render` does.

        scope.only: also renders the kept ones of these drafts in full. Rows that cannot be rendered in full
        are refused before any draft is rendered. While the budget leaves drafts out, nothing is chosen. Both
        outputs count towards it.
        """
        from framefleet.api.commands import wait_for
        from framefleet.api.jobs import Summary, store_of_job
        from framefleet.plugins.drafts import drafts

        _check_limit(scope.limit)
        first, keep = drafts.draft_job(job), drafts.keep_of(job)
        drafts.check_in_full(job, keep, watch, scope.table)
        watch.say(f"drafts: {first.output}")
        spent = drafts.spent_on(job, scope.spent)
        drafted = run(first, watch, replace(scope, spent=spent, stays=lambda: True))
        ended = Summary(
            done=0,
            failed=0,
            elapsed_s=0.0,
            mean_batch=None,
            inner={DRAFTS: drafted},
            num_invalid=drafted.num_invalid,
            store=store_of_job(job),
        )
        if drafted.over_budget:
            return replace(ended, over_budget=drafted.over_budget, to_continue=drafted.to_continue)
        wait_for(watch, "choosing among the drafts")
        choice = drafts.choose(job, keep, table_of(first, inside=self) or scope.table)
        watch.say(f"in full: {choice.num_kept:,} of {count_text(choice.num_drafts, 'draft')}: {keep}")
        if choice.place is None:
            return replace(ended, is_none_kept=True)
        only = scope.only
        if only is not None:
            only = {*only, *drafts.rows_of_drafts(job, choice.place, only)}
        spent = drafts.spent_on(first, scope.spent, drafted)
        full = run(job, watch, replace(scope, only=only, table=choice.place, spent=spent))
        return replace(full, inner={DRAFTS: drafted}, num_invalid=drafted.num_invalid + full.num_invalid)

    def plan(
        self, job: Job, watch: Watch, wanted: PlanOptions, *, run: PlanRun, table: str | None = None
    ) -> JobPlan:
        from framefleet.plugins.drafts import drafts
        from framefleet.plugins.drafts.drafts import DraftedPlan

        _check_limit(wanted.limit)
        drafted, keep = drafts.draft_job(job), drafts.keep_of(job)
        first = run(drafted, watch, wanted, table=table)
        full = run(job, watch, replace(wanted, probe=False), table=table)  # its rows are not chosen yet
        # Another runner may decide the number of drafts.
        most_kept = first.counts.distinct if runners_of(drafted) else drafts.most_kept(job, keep, table)
        return DraftedPlan.of(full, audits=None, drafts=first, most_kept=most_kept, keep=str(keep))

    def table(self, job: Job) -> str:
        from framefleet.api.jobs import below
        from framefleet.pipeline.outputs.layout import CHOSEN

        return below(job, f"{CHOSEN}/*.parquet")


def _check_limit(limit: int | None) -> None:
    """Raise JobError for a limit, since drafts decide which rows are rendered."""
    if limit is not None:
        raise JobError("limit: the job has drafts", "leave it out, or set `draft.keep`")
