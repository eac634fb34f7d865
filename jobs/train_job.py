"""The job file of a training: the sections of a render job that say what and where, and `train:`."""

from __future__ import annotations

from typing import Any

from framefleet.jobs.job import TableJob, job_schema
from framefleet.pipeline.training.settings import TrainSettings


class TrainJob(TableJob):
    """What is trained, on which videos, and how.

    table: rows of `video` and `prompt`, or the records of a render job.
    """

    train: TrainSettings


def train_job_schema() -> dict[str, Any]:
    """Return the JSON Schema of a training's job file, for editors."""
    return job_schema(TrainJob)
