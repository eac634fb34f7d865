"""`framefleet schema`: what is typed, and what it prints."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def schema_command(
    section: Annotated[
        str | None,
        typer.Argument(metavar="[SECTION]", help="Print the schema of jobs with this section, e.g. train."),
    ] = None,
) -> None:
    """Print the JSON Schema of a job file, for editors."""
    from framefleet.jobs.job.schema import job_schema

    print(json.dumps(job_schema(section), indent=2))
