"""From the sections that plugins add to a job file to the file steps that they ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from framefleet.jobs.doors import file_steps
from framefleet.jobs.job.schema import Job, has_changed
from framefleet.pipeline.errors import JobError, PluginError
from framefleet.pipeline.outputs.columns import ClipColumn, refusals_of
from framefleet.pipeline.outputs.file_step import FileStep, added_columns
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.records import plain_name
from framefleet.pipeline.plugin import sections


def kinds_of(job: Job) -> dict[str, type[FileStep]]:
    """Return the steps of the sections that differ from their defaults. Others are not even imported."""
    return {name: import_kind() for name, import_kind in file_steps().items() if has_changed(job, name)}


def open_steps(job: Job) -> dict[str, FileStep]:
    """Return the job's steps by section, in their order. Raises UserError for what cannot be used."""
    opened: dict[str, FileStep] = {}
    for name, kind in kinds_of(job).items():
        step = kind.open(getattr(job, name), folder=job.folder)
        if isinstance(step, FileStep):
            opened[name] = step
        elif step is not None:
            problem = f"{name}: `open` of {kind.__module__}:{kind.__name__} returned {type(step).__name__}"
            raise PluginError(problem, "have it return the step, or None")
    return dict(sorted(opened.items(), key=lambda named: named[1].order))


def check_steps(steps: Mapping[str, FileStep], columns: Sequence[ClipColumn], media: Media) -> None:
    """Raise JobError for steps that do not work with the format, or with other columns."""
    names = [*map(plain_name, (*added_columns(steps, columns).names, *refusals_of(columns)))]
    for section, step in steps.items():
        step.check(media)
        for name in step.columns.names:
            if names.count(plain_name(name)) > 1:
                raise JobError(f"{section}: there would be two columns {name!r}", "leave one of them out")


def check_free(
    steps: Mapping[str, FileStep], columns: Sequence[ClipColumn], arguments: Collection[str], class_name: str
) -> None:
    """Raise JobError for a column of a plugin that is an argument of the pipeline."""
    names = [(section, name) for section, step in steps.items() for name in step.columns.names]
    for section, name in [*names, *((column.section, column.name) for column in columns)]:
        if name in arguments:
            problem = f"{section}: records have a column {name!r} already"
            raise JobError(f"{problem}, which is an argument of {class_name}", "give it another name")


def for_choice(job: Job) -> dict[str, Any]:
    """Return the sections for a job that renders candidates, some of which are chosen."""
    of_job = {name: getattr(job, name) for name in sections()}
    return {name: section.for_choice for name, section in of_job.items() if section is not None}


def sections_with_steps(job: Mapping[str, Any]) -> list[str]:
    """Return the sections that differ from their defaults, and may ask for steps. job: as in job.json."""
    return [name for name in file_steps() if job.get(name) not in (None, _defaults(name))]


def decisive_sections(job: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return what must stay the same in these sections to continue an output. job: as in job.json."""
    sections = {name: _defaults(name) if job.get(name) is None else job[name] for name in names}
    return {name: file_steps()[name]().decisive(section) for name, section in sections.items()}


def _defaults(name: str) -> Any:
    """Return a section that no job has changed, as job.json has it."""
    default = Job.model_fields[name].default  # of a runner's section: None
    return {} if default is None else default.model_dump()
