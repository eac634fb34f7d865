"""The job file of a training: a job with the section `train`."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from framefleet.cluster.fleet.settings import ElasticWorkers, FleetSettings
from framefleet.jobs.job.schema import TableJob
from framefleet.plugins.train.settings import TrainSettings


class TrainJob(TableJob):
    """What is trained, on which videos, and how.

    table: rows of `video` and `prompt`, or the records of a render job.
    """

    model_config = ConfigDict(title="framefleet training")

    table: Annotated[str, Field(min_length=1)]
    """Parquet, CSV or JSONL: a file, folder, glob or fsspec URL."""
    train: TrainSettings

    @field_validator("fleet")
    @classmethod
    def _is_fixed(cls, fleet: FleetSettings) -> FleetSettings:
        if isinstance(fleet.workers, ElasticWorkers):
            raise PydanticCustomError("workers", "a number of workers that does not change, or auto")
        if fleet.same_gpu:
            raise PydanticCustomError("same_gpu", "without same_gpu, which is for rendering")
        if fleet.encoders:
            raise PydanticCustomError("encoders", "without encoders, which are for rendering")
        return fleet
