"""The output that a job names, where other machines find it too, and how clips are stored in it."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

from fsspec.core import has_magic

from framefleet.jobs.job.schema import Job, TableJob
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.layout import COLUMN_LOCKS, TABLES
from framefleet.pipeline.outputs.media.media_settings import SOUNDS, Media, MediaFormat, out_of_step
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.stores.retries import OUTAGE_S
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.plugin import files_of_plugins, inner_outputs
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.tables.table import folder_of

_KERNEL = ("/proc/", "/sys/")
_OWN: dict[str, MediaFormat] = {"video": "mp4", "image": "png", "audio": "flac"}


def store_of_job(job: TableJob, place: str | None = None) -> Store:
    """Return the job's output, or another place that it writes to.

    Raises JobError for a place that other processes cannot see, or where nothing can be written.
    """
    is_own, place = place is None, job.output if place is None else place
    if place.startswith("memory://"):
        raise JobError(f"{place} is private to each process", "use a folder or S3")
    if place.startswith(("http://", "https://")):
        problem = f"the output {public_url(place)} is a web page, where nothing can be written"
        raise JobError(problem, "use a folder or S3")
    outage_s = job.retries.store_outage_s if isinstance(job, Job) else OUTAGE_S
    store = Store(place, job.storage_options, outage_s=outage_s)
    path = Path(_plain(place))
    files = (place for place in (path, *path.parents) if place.is_file())
    try:
        file = None if "://" in place else next(files, None)
    except OSError as error:  # of a name that is too long
        raise JobError(f"the output {place} cannot be a folder: {error.strerror}", "choose another") from None
    if file:
        raise JobError(f"the output {place} cannot be a folder: {file} is a file", "choose another output")
    if "://" not in place and f"{_plain(place)}/".startswith(_KERNEL):
        problem = f"the output {place} belongs to the kernel, which stores no files"
        raise JobError(problem, "choose another output")
    if is_own and job.table is not None:  # the output's files are tables too
        root, own = _plain(place), folder_of(job.table).rstrip("/")
        if own == _plain(job.table):
            are_apart = not (f"{own}/".startswith(f"{root}/") or root.startswith(f"{own}/"))
        else:  # one file, or those that a pattern finds
            has_pattern = has_magic(job.table)
            are_apart = not (has_pattern and (own == root or _looks_below(root, _plain(job.table))))
        if not are_apart:
            raise JobError(
                f"the output {public_url(place)} and the table {public_url(job.table)} are inside each "
                "other, so they would be read together",
                "give the output a folder of its own",
            )
    return store


def _looks_below(output: str, pattern: str) -> bool:
    """Return whether a pattern of tables may find files in an output's folders."""
    parts, wanted = output.split("/"), pattern.split("/")
    for part, pattern_part in zip(parts, wanted, strict=False):
        if "**" in pattern_part:
            return True
        if not fnmatchcase(part, pattern_part):
            return False
    return len(wanted) > len(parts) + 1


def base_of(job: Job) -> str:
    """Return where relative paths in rows start."""
    if job.inputs.base is not None:
        return job.inputs.base
    return job.folder or os.getcwd() if job.table is None else folder_of(job.table)


def job_inputs(job: Job) -> Inputs:
    """Return what rows may read."""
    options, outage_s = job.storage_options, job.retries.store_outage_s
    return Inputs(job.inputs.roots, options, base=base_of(job), outage_s=outage_s)


def files_of_others(store: Store, table: str | None = None) -> str | None:
    """Return a foreign file in a local folder that is not an output yet; None if there is none.

    A job's own files do not count: its job file, its table, and what is there before the output begins.
    """
    folder = store.url_of("")
    if "://" in folder or not os.path.isdir(folder) or Output(store).is_begun:
        return None
    own = {TABLES, COLUMN_LOCKS, *files_of_plugins(), *inner_outputs(), os.path.basename(table or "")}
    names = (name for name in sorted(os.listdir(folder)) if not name.startswith((".", "_")))
    return next((name for name in names if name not in own and not name.endswith((".yaml", ".yml"))), None)


def below(job: TableJob, path: str) -> str:
    """Return the absolute path or URL of something below a job's output."""
    return f"{_plain(job.output)}/{path}"


def _plain(location: str) -> str:
    """Return a path or URL in the spelling of `folder_of`."""
    is_path = "://" not in location
    return (os.path.abspath(os.path.expanduser(location)) if is_path else location).rstrip("/")


def media_of(job: Job, spec: PipelineSpec) -> Media:
    """Return how clips are stored. Raises JobError for a format that cannot hold them."""
    own: MediaFormat = "png.zip" if spec.has_layers else _OWN[spec.kind]
    media = Media(**job.media.model_dump() | {"format": job.media.format or own})
    about = f"media.format is {media.format}, but {spec.class_name} renders "
    if (media.format in SOUNDS) != (spec.kind == "audio"):
        raise JobError(f"{about}{'sound only' if spec.kind == 'audio' else 'frames'}", f"use {own}")
    if media.format == "png" and spec.kind == "video":
        raise JobError(f"{about}videos", "use mp4 or mkv, or png.zip for a png of each frame")
    if media.format == "png" and spec.has_layers:
        raise JobError(f"{about}layers", "use png.zip, or mkv")
    native = spec.fps_of({**spec.defaults(), **job.defaults, **job.overrides})
    if spec.has_sound and media.audio and native and media.fps not in (None, native):
        problem, fix = out_of_step(media.fps or native, native).args
        raise JobError(f"media.fps: {problem}", fix)
    return media
