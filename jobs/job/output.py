"""The output that a job names, as other machines find it too, and how clips are stored in it."""

from __future__ import annotations

from framefleet.jobs.job.schema import Job, TableJob
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.media_settings import Media
from framefleet.pipeline.outputs.store import Store


def open_output(job: TableJob, place: str | None = None) -> Store:
    """Return the job's output, or another place that it writes to: one that other processes see too."""
    place = job.output if place is None else place
    if place.startswith("memory://"):
        raise JobError(f"{place} is what each process has for itself", "use a folder or S3")
    return Store(place, job.storage_options)


def media_of(job: Job, spec: PipelineSpec) -> Media:
    """Return how clips are stored. Raises JobError for a format that does not hold them."""
    format = job.media.format or ("png" if spec.kind == "image" else "mp4")
    if format == "png" and spec.kind == "video":
        raise JobError(f"media.format is png, but {spec.class_name} renders videos", "use mp4 or mkv")
    return Media(format=format, crf=job.media.crf, fps=job.media.fps)
