"""`framefleet schema`: what is typed, and what it prints."""

from __future__ import annotations

from typing import Annotated

import typer


def schema_command(
    train: Annotated[
        bool, typer.Option("--train", help="Print the schema of a training job instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of a job file, for editors."""
    import json

    from framefleet.jobs.job.schema import Job, TrainJob, job_schema

    print(json.dumps(job_schema(TrainJob if train else Job), indent=2))
