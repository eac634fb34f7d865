"""Drafts first: each row rendered cheaply, the best of these chosen, and those rows rendered in full.

    table -> drafts/, an output of its own, with scores -> chosen/, a table of those rows -> the output

Each step goes on where it was left, and none knows the others: drafts are a job with other arguments, a
choice is a table, and what is rendered in full are the rows of that table.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from dataclasses import replace

from framefleet.cluster.driver.budget import JobBudget, Spent
from framefleet.cluster.driver.progress import Summary
from framefleet.cluster.driver.spending import spent_before
from framefleet.jobs.job.output import store_of_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.chosen import check_choice, choose, rows_of_drafts
from framefleet.jobs.render.claim import check_claim
from framefleet.jobs.render.draft_job import draft_job, keep_of
from framefleet.jobs.render.render import render_rows
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.survey import check_valid, survey_rows
from framefleet.jobs.show.watch import Callback, Watch, wait_for
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.scores.choice import Keep


def render_drafted(job: Job, watch: Watch, *, only: Collection[str] | None) -> Summary:
    """Render drafts, choose, and render what was chosen; return how that ended, with `drafts` in it.

    only: of drafts and of rows in full, as of `render_job`; what is kept of these drafts is rendered in full
    too. Raises as that does; what no row in full may be is told before a draft is rendered. Nothing is chosen
    while the budget leaves drafts out; both count in it.
    """
    drafts, keep = draft_job(job), keep_of(job)
    _check_in_full(job, drafts, keep, watch)
    watch.say(f"drafts: {drafts.output}")
    drafted = render_rows(drafts, watch, only=only, spent=_spent(job))
    ended = Summary(done=0, failed=0, elapsed_s=0.0, mean_batch=None, drafts=drafted, store=store_of_job(job))
    if drafted.over_budget:
        return replace(ended, over_budget=drafted.over_budget)
    wait_for(watch, "choosing among the drafts")
    choice = choose(job, drafts, keep)
    watch.say(f"{choice.num_kept:,} of {choice.num_drafts:,} drafts are rendered in full: {keep}")
    if choice.place is None:
        return replace(ended, is_none_kept=True)
    if only is not None:
        only = {*only, *rows_of_drafts(job, choice.place, only)}
    full = render_rows(job, watch, only=only, table=choice.place, spent=_spent(drafts))
    return replace(full, drafts=drafted)


def _spent(job: Job) -> Spent:
    """Return what was spent on one of the two outputs, where the other's run has to know."""
    return Spent() if job.budget == JobBudget() else spent_before(store_of_job(job))


def _check_in_full(job: Job, drafts: Job, keep: Keep, watch: Watch) -> None:
    """Raise UserError for what would be refused once the drafts are there."""
    try:
        with closing(resolve_job(drafts, Callback())) as resolved:
            check_choice(resolved, keep)
    except JobError as error:  # of a key that the job has not
        raise JobError(error.problem.replace("overrides.", "draft."), error.fix) from None
    with closing(resolve_job(job, watch)) as full, closing(RowIndex()) as index:
        check_claim(full)
        survey = survey_rows(full, index, watch)
        check_valid(survey, full.table, on_invalid=job.on_invalid, verb="rendered in full")
