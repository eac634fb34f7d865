"""From a job with drafts to the job that renders them, and to which of them are kept."""

from __future__ import annotations

from framefleet.jobs.job.output import below
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.own_tables import DRAFTS
from framefleet.jobs.render.scores import names_of
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
