"""`framefleet retry`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import JobOrOutput, Quiet, Sets, SummaryAsJson, Verbose
from framefleet.jobs.show.console import reporting

_ErrorTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--error", metavar="TYPE", help="Include only rows with this error, e.g. OutOfMemory; repeatable."
    ),
]


def retry_command(
    job: JobOrOutput,
    error_types: _ErrorTypes = None,
    sets: Sets = None,
    as_json: SummaryAsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Render only the rows that failed. `render` does this too, with all other rows that have no record yet.

    Exit codes are those of `render`.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.render.claimed_job import job_of

        found = job_of(job, sets or [])
        from framefleet.jobs.retry.shown import show_retry

        code = show_retry(found, error_types=frozenset(error_types or []), as_json=as_json, quiet=quiet)
    raise typer.Exit(code)
