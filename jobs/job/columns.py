"""From the sections that plugins add to a job file to the columns that they add to records."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial

import pyarrow as pa

from framefleet.jobs.job.output import job_inputs
from framefleet.jobs.job.schema import Job, has_changed
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.columns import REFUSED, ClipColumn, late_columns, refusals_of
from framefleet.pipeline.outputs.parts.record_tables import taken_columns
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, RECORD_FIELDS, plain_name
from framefleet.pipeline.outputs.query import check_where
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.plugin import columns_of_sections, sections
from framefleet.pipeline.rows.tables.column_checks import argument_meant


def open_columns(job: Job, *, late_alone: bool = False) -> list[ClipColumn]:
    """Return the job's columns. Raises UserError for one that cannot be used or has the name of another.

    late_alone: only those that clips get after their records.
    """
    doors = [] if late_alone else [*columns_of_sections(is_late=False).items()]
    doors += columns_of_sections(is_late=True).items()
    changed = ((getattr(job, name), open_it) for name, open_it in doors if has_changed(job, name))
    opened = (column for section, open_it in changed for column in open_it(section, job.folder))
    columns = [
        replace(column, function=partial(column.function, inputs=job_inputs(job)))
        if column.takes_inputs and column.function is not None
        else column
        for column in opened
    ]
    notes = dict.fromkeys(map(plain_name, (*RECORD_FIELDS.names, *FAILURE_FIELDS.names)), "")
    for column in columns:
        why = f", of which one says why a clip has no {column.name!r}"
        own = {column.name: "", **dict.fromkeys(refusals_of([column]), why)}
        for name, note in own.items():
            if (note_there := notes.get(plain_name(name))) is not None:
                raise JobError(
                    f"{column.section}: there would be two columns {name!r}{note or note_there}",
                    "give it another name, or leave one out",
                )
            notes[plain_name(name)] = note
    return columns


def check_recorded(columns: Iterable[ClipColumn], store: Store) -> None:
    """Raise JobError for late columns that records of an output have already.

    E.g. because the table of an earlier run had such a column.
    """
    columns = [*columns]
    taken = taken_columns(store) if columns else frozenset()
    for column in columns:
        if not taken.isdisjoint([column.name, REFUSED.format(column.name)]):
            problem = f"{column.section}: records of {store.url_of('')} have a column {column.name!r} already"
            key = f"give `{column.name_key}` another value" if column.name_key else "give it another name"
            raise JobError(problem, f"{key}, or choose another output")


def check_late(columns: Iterable[ClipColumn], records: pa.Schema, arguments: Collection[str]) -> None:
    """Raise JobError for a column or argument that late columns name and no record will have."""
    names = [*records.names, *sorted(arguments)]
    for column in late_columns(columns):
        for name in column.placeholders:
            if name not in names:
                question = f"{column.section}: the question for {column.name!r}"
                raise JobError(f"{question} has {{{name}}}, which no row has", argument_meant(name, names))
        if column.where:
            source = "`until:`" if "accepted" in column.where else "it to `scores:`"
            check_where(records, column.where, place=f"{column.section}.where", source=source)


def step_columns(job: Job) -> list[str]:
    """Return the names of the columns that the job's sections add to records, without opening them."""
    of_job = (getattr(job, name) for name in sections())
    return [name for section in of_job if section is not None for name in section.column_names]
