"""From the sections that plugins add to a job file to the clip steps that they ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from framefleet.jobs.doors import clip_steps
from framefleet.jobs.job.schema import Job
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.clip_step import ClipStep, LateStep, added_columns
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.record_tables import taken_columns
from framefleet.pipeline.outputs.stores.store import Store


def kinds_of(job: Job) -> dict[str, type[ClipStep]]:
    """Return the steps of the sections that differ from their defaults. Others are not even imported."""
    return {
        name: import_kind()
        for name, import_kind in clip_steps().items()
        if getattr(job, name) != Job.model_fields[name].default
    }


def open_steps(job: Job) -> dict[str, ClipStep]:
    """Return the job's steps by section, in their order. Raises UserError for what cannot be used."""
    opened = {
        name: step
        for name, kind in kinds_of(job).items()
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


def check_recorded(steps: Mapping[str, ClipStep], store: Store) -> None:
    """Raise JobError for a column that is filled in later, where records of an output have it already.

    E.g. from the table of a run without the step.
    """
    late = {
        name: (section, step)
        for section, step in steps.items()
        if isinstance(step, LateStep)
        for name in step.columns.names
    }
    taken = taken_columns(store) if late else frozenset()
    for name, (section, step) in late.items():
        if name in taken:
            problem = f"{section}: records of {store.url_of('')} have a column {name!r} already"
            key = f"give `{step.column_key}` another value" if step.column_key else "give it another name"
            raise JobError(problem, f"{key}, or choose another output")


def step_columns(job: Job) -> list[str]:
    """Return the names of the columns that the job's steps add to records, without opening them."""
    return [
        column for name, kind in kinds_of(job).items() for column in kind.column_names(getattr(job, name))
    ]


def for_choice(job: Job) -> dict[str, Any]:
    """Return the sections of a job among whose clips some are chosen."""
    return {name: kind().for_choice(getattr(job, name)) for name, kind in clip_steps().items()}


def sections_with_steps(job: Mapping[str, Any]) -> list[str]:
    """Return the sections that differ from their defaults, and may ask for steps. job: as in job.json."""
    return [name for name in clip_steps() if job.get(name) not in (None, _defaults(name))]


def decisive_sections(job: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return what of these sections must be the same for an output to be continued. job: as in job.json."""
    sections = {name: _defaults(name) if job.get(name) is None else job[name] for name in names}
    return {name: clip_steps()[name]().decisive(section, job) for name, section in sections.items()}


def _defaults(name: str) -> Any:
    """Return a section that no job has changed, as job.json has it."""
    default = Job.model_fields[name].default  # of a runner's section: None
    return {} if default is None else default.model_dump()


def steps_again(job: Mapping[str, Any], *, allow_pickle: bool) -> dict[str, ClipStep]:
    """Return the steps with which the file of a row is made again. job: as in job.json.

    Raises JobError for what job.json cannot say, and for what the caller has to allow.
    """
    steps = {
        name: step
        for name in sections_with_steps(job)
        if (kind := clip_steps()[name]()).changes_file
        and (step := kind.again(job[name], allow_pickle=allow_pickle)) is not None
    }
    return dict(sorted(steps.items(), key=lambda named: named[1].order))
