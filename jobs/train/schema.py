"""The job file of a training: the sections of a render job that say what and where, and `train:`."""

from __future__ import annotations

from framefleet.jobs.job.schema import TableJob
from framefleet.pipeline.training.settings import TrainSettings


class TrainJob(TableJob):
    """What is trained, on which videos, and how.

    table: rows of `video` and `prompt`, or the records of a render job.
    """

    train: TrainSettings
