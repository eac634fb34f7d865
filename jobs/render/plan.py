"""From a job to what rendering it would do: counts and shapes. Starts no worker, writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.claim import check_claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import Survey, mark_done, survey_rows
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.rows.tables.index import RowCounts, RowIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """What a job comes down to. shapes: valid rows by shape, the most frequent first."""

    resolved: ResolvedJob
    survey: Survey
    counts: RowCounts
    shapes: Mapping[str, int]


def plan_job(job: Job, watch: Watch) -> JobPlan:
    """Read and check everything that `render` would. Raises UserError as it would, but for invalid rows."""
    with closing(resolve_job(job, watch)) as resolved, closing(RowIndex()) as index:
        check_claim(resolved)
        survey = survey_rows(resolved, index, watch)
        mark_done(resolved, index)
        shapes = dict(survey.shapes.most_common())
        return JobPlan(resolved=resolved, survey=survey, counts=index.counts(), shapes=shapes)
