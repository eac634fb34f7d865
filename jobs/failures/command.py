"""`framefleet failures`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import AsJson, OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_Traceback = Annotated[bool, typer.Option("--traceback", help="Show where each was raised.")]
_ErrorTypes = Annotated[
    list[str] | None,
    typer.Option("--error", metavar="TYPE", help="Only rows of this error, as OutOfMemory; repeatable."),
]
_Limit = Annotated[int, typer.Option("--limit", min=1, help="How many rows of each type are shown.")]


def failures_command(
    output: OutputToRead,
    error_types: _ErrorTypes = None,
    limit: _Limit = 10,
    traceback: _Traceback = False,
    as_json: AsJson = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """List the rows that failed: which, why, what to do, how often and where they were tried.

    Needs no cluster and no model. Exit code 0, whether there are some or none.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.failures.shown import show_failures
        from framefleet.jobs.job.file import set_values

        options = set_values(sets or []).get("storage_options", {})
        chosen = frozenset(error_types or [])
        if as_json:
            from framefleet.jobs.failures.shown import print_failures

            print_failures(output, options, chosen)
        else:
            show_failures(output, options, chosen, limit=limit, traceback=traceback)
