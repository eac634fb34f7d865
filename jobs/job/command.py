"""`framefleet schema`: what is typed, and what it prints."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from framefleet.jobs.show.console import reporting
from framefleet.pipeline.errors import JobError


def schema_command(
    section: Annotated[
        str | None,
        typer.Argument(metavar="[SECTION]", help="Print the schema of jobs with this section, e.g. train."),
    ] = None,
) -> None:
    """Print the JSON Schema of a job file, for editors."""
    with reporting(verbose=False):
        from framefleet.doors import job_kind
        from framefleet.jobs.job.schema import Job, job_schema

        kind = job_kind([section]) if section else None
        if section and not kind:
            raise JobError(f"{section}: no job has a schema of its own by this section", "leave it out")
        print(json.dumps(job_schema(kind.schema if kind else Job), indent=2))
