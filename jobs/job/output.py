"""The output that a job names, as other machines find it too, and how clips are stored in it."""

from __future__ import annotations

from framefleet.jobs.job.schema import Job, TableJob
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.encode_clip import out_of_step
from framefleet.pipeline.outputs.media_settings import SOUNDS, Media, MediaFormat
from framefleet.pipeline.outputs.patience import OUTAGE_S
from framefleet.pipeline.outputs.provenance import open_signing
from framefleet.pipeline.outputs.store import Store

_OWN: dict[str, MediaFormat] = {"video": "mp4", "image": "png", "audio": "flac"}


def open_output(job: TableJob, place: str | None = None) -> Store:
    """Return the job's output, or another place that it writes to: one that other processes see too."""
    place = job.output if place is None else place
    if place.startswith("memory://"):
        raise JobError(f"{place} is what each process has for itself", "use a folder or S3")
    outage_s = job.retries.store_outage_s if isinstance(job, Job) else OUTAGE_S
    return Store(place, job.storage_options, outage_s=outage_s)


def media_of(job: Job, spec: PipelineSpec) -> Media:
    """Return how clips are stored. Raises JobError for a format that does not hold them."""
    own: MediaFormat = "png.zip" if spec.has_layers else _OWN[spec.kind]
    signing = job.media.c2pa and open_signing(job.media.c2pa.certificate, job.media.c2pa.private_key)
    asked = {"format": job.media.format or own, "c2pa": signing}
    media = Media(**job.media.model_dump() | asked)
    said = f"media.format is {media.format}, but {spec.class_name} renders "
    if (media.format in SOUNDS) != (spec.kind == "audio"):
        raise JobError(f"{said}{'sound alone' if spec.kind == 'audio' else 'frames'}", f"use {own}")
    if media.format == "png" and spec.kind == "video":
        raise JobError(f"{said}videos", "use mp4 or mkv")
    if media.format == "png" and spec.has_layers:
        raise JobError(f"{said}layers", "use png.zip, or mkv")
    native = spec.fps_of({**spec.defaults(), **job.defaults})
    if spec.has_sound and media.audio and native and media.fps not in (None, native):
        problem, fix = out_of_step(media.fps or native, native).args
        raise JobError(f"media.fps: {problem}", fix)
    return media
