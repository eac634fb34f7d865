"""Drafts first: each row rendered cheaply, the best of these chosen, and those rows rendered in full.

    table -> drafts/, an output of its own, with scores -> chosen/, a table of those rows -> the output

Each step goes on where it was left, and none knows the others: drafts are a job with other arguments, a
choice is a table, and what is rendered in full are the rows of that table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from framefleet.cluster.driver.budget import JobBudget, Spent
from framefleet.cluster.driver.progress import Summary
from framefleet.cluster.driver.spending import spent_before
from framefleet.jobs.job.output import below, store_of_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.claim import check_claim
from framefleet.jobs.render.draft_choice import check_choice, choose, rows_of_drafts
from framefleet.jobs.render.render import render_rows
from framefleet.jobs.render.resolve import names_of, resolve_job
from framefleet.jobs.render.survey import check_valid, survey_rows
from framefleet.jobs.show.watch import Callback, Watch, wait_for
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.layout import DRAFTS
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.pipeline.scores.choice import Keep, check_keep
from framefleet.pipeline.scores.score import OWN_SCORES


def draft_job(job: Job) -> Job:
    """Return the job that renders the drafts: the same rows with other arguments, and scores."""
    assert job.draft is not None
    changed = {
        "output": below(job, DRAFTS),
        "overrides": {**job.overrides, **job.draft.arguments},
        "scores": job.scores or list(OWN_SCORES),
        "draft": None,
    }
    return job.model_copy(update=changed)


def keep_of(job: Job) -> Keep:
    """Return which drafts are kept. Raises JobError for what is not measured of them."""
    assert job.draft is not None
    given = job.draft.keep
    keep = Keep(best=given.best, per=tuple(given.per), by=given.by, where=given.where)
    check_keep(keep, names_of(draft_job(job)))
    return keep


def most_kept(job: Job, keep: Keep) -> int:
    """Return how many drafts can be kept: of distinct rows, by the groups that they make.

    A column that only records have makes one group for each row. Reads the whole table.
    """
    groups: Counter[int] = Counter()
    seen: set[int] = set()  # of rows, by hashes: a hundred bytes each
    with closing(resolve_job(draft_job(job), Callback())) as drafts:
        check_choice(drafts, keep)
        unset = dict.fromkeys(drafts.rows.argument_fields.names)
        for first, batch in drafts.table.batches():
            for row in drafts.rows.read(first, batch):
                if isinstance(row, IdentifiedRow) and (mark := hash(row.row_id)) not in seen:
                    seen.add(mark)
                    carried = drafts.rows.carried.of(batch.slice(row.index - first, 1))
                    cells = unset | dict(zip(carried.schema.names, carried.columns, strict=True))
                    groups[hash(_group(row, keep, cells))] += 1
    return sum(groups.values()) if keep.best is None else sum(min(keep.best, n) for n in groups.values())


def _group(row: IdentifiedRow, keep: Keep, cells: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the key of the row's group, as far as it is known. cells: carried columns."""
    known = {**cells, **row.request().arguments, "model_name": row.model}
    return tuple(str(known.get(name, row.row_id)) for name in keep.per)


def render_drafted(job: Job, watch: Watch, *, only: Collection[str] | None) -> Summary:
    """Render drafts, choose, and render what was chosen; return how that ended, with `drafts` in it.

    only: of drafts and of rows in full, as of `render_job`; what is kept of these drafts is rendered in full
    too. Raises as that does; rows that cannot be rendered in full are refused before any draft is. None is
    chosen while the budget leaves drafts out; both count in it.
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
