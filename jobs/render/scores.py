"""The scores that a job names, opened; what is somebody's own is imported here."""

from __future__ import annotations

from framefleet.jobs.job.schema import Job
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, RECORD_FIELDS
from framefleet.pipeline.scores.score import SIMILARITY, ClipScore, open_scores


def names_of(job: Job) -> list[str]:
    """Return the columns of the job's scores, without opening them."""
    names = [score if isinstance(score, str) else SIMILARITY for score in job.scores]
    return [name.rpartition(":")[2] for name in names]


def scores_of(job: Job) -> tuple[ClipScore, ...]:
    """Return the job's scores. Raises UserError for what is none, or has the name of another column."""
    names = [score for score in job.scores if isinstance(score, str)]
    folders = [score.similarity for score in job.scores if not isinstance(score, str)]
    if len(folders) > 1:
        raise JobError("scores: there are two CLIP models", "leave one out")
    reserved = {*RECORD_FIELDS.names, *FAILURE_FIELDS.names}
    return tuple(open_scores(names, folders[0] if folders else None, reserved=reserved))
