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
from framefleet.pipeline.render.probe.probe import Probed, Shapes, probe_shapes
from framefleet.pipeline.rows.tables.index import RowCounts, RowIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """What a job comes down to. shapes: valid rows by shape, the most frequent first."""

    resolved: ResolvedJob
    survey: Survey
    counts: RowCounts
    shapes: Mapping[str, int]
    probed: Probed | None


def plan_job(job: Job, watch: Watch, *, probe: bool = False) -> JobPlan:
    """Read and check everything that `render` would. Raises UserError as it would, but for invalid rows.

    probe: call the model's pipeline, without weights, for each shape of the table.
    """
    with closing(resolve_job(job, watch)) as resolved, closing(RowIndex()) as index:
        check_claim(resolved)
        survey = survey_rows(resolved, index, watch, probed=Shapes() if probe else None)
        mark_done(resolved, index, watch)
        return JobPlan(
            resolved=resolved,
            survey=survey,
            counts=index.counts(),
            shapes=dict(survey.shapes.most_common()),
            probed=_probed(resolved, survey.probed, watch) if survey.probed else None,
        )


def _probed(resolved: ResolvedJob, shapes: Shapes, watch: Watch) -> Probed:
    watch.say(f"probing {len(shapes.first):,} shapes")
    weights = resolved.weights
    return probe_shapes(shapes, resolved.plan.spec, weights.configs(), weights.config_files)
