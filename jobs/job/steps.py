"""From the sections that plugins add to a job file to the clip steps that they ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from framefleet.doors import clip_steps
from framefleet.jobs.job.schema import Job
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.clip_step import ClipStep, added_columns
from framefleet.pipeline.outputs.media.media_settings import Media


def open_steps(job: Job) -> dict[str, ClipStep]:
    """Return the job's steps by section, in their order. Raises UserError for what cannot be used."""
    opened = {
        name: step
        for name, kind in clip_steps().items()
        if (step := kind.open(getattr(job, name), folder=job.folder)) is not None
    }
    return dict(sorted(opened.items(), key=lambda named: named[1].order))


def check_steps(steps: Mapping[str, ClipStep], media: Media) -> None:
    """Raise JobError for steps that do not go with the format, or with each other."""
    names = added_columns(steps).names
    for section, step in steps.items():
        step.check(media)
        for name in step.columns.names:
            if names.count(name) > 1:
                raise JobError(f"{section}: there would be two columns {name!r}", "leave one of them out")


def check_free(steps: Mapping[str, ClipStep], arguments: Collection[str], class_name: str) -> None:
    """Raise JobError for a column of a step that is an argument of the pipeline."""
    for section, step in steps.items():
        for name in step.columns.names:
            if name in arguments:
                problem = (
                    f"{section}: records have a column {name!r} already, which is an argument of {class_name}"
                )
                raise JobError(problem, "give it another name")


def step_columns(job: Job) -> list[str]:
    """Return the names of the columns that the job's steps add to records, without opening them."""
    return [column for name, kind in clip_steps().items() for column in kind.column_names(getattr(job, name))]


def for_choice(job: Job) -> dict[str, Any]:
    """Return the sections of a job among whose clips some are chosen."""
    return {name: kind.for_choice(getattr(job, name)) for name, kind in clip_steps().items()}


def decisive_sections(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of these sections must be the same for an output to be continued. job: as in job.json."""
    defaults = {name: Job.model_fields[name].default for name in clip_steps()}  # of a runner's section: None
    sections = {name: {} if default is None else default.model_dump() for name, default in defaults.items()}
    sections |= {name: job[name] for name in sections if job.get(name) is not None}
    return {name: kind.decisive(sections[name], job) for name, kind in clip_steps().items()}


def steps_again(job: Mapping[str, Any], *, allow_pickle: bool) -> dict[str, ClipStep]:
    """Return the steps with which the file of a row is made again. job: as in job.json.

    Raises JobError for what job.json cannot say, and for what the caller has to allow.
    """
    steps = {
        name: step
        for name, kind in clip_steps().items()
        if kind.changes_file
        and job.get(name) is not None
        and (step := kind.again(job[name], allow_pickle=allow_pickle)) is not None
    }
    return dict(sorted(steps.items(), key=lambda named: named[1].order))
