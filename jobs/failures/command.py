"""`framefleet failures`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import AsJson, OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_Traceback = Annotated[bool, typer.Option("--traceback", help="Show the traceback of each error.")]
_ErrorTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--error", metavar="TYPE", help="Include only rows with this error, e.g. OutOfMemory; repeatable."
    ),
]
_Limit = Annotated[int, typer.Option("--limit", min=1, help="Number of rows to show for each type of error.")]


def failures_command(
    output: OutputToRead,
    error_types: _ErrorTypes = None,
    limit: _Limit = 10,
    traceback: _Traceback = False,
    as_json: AsJson = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """List the rows that failed, with the reason, the fix, the number of attempts and the workers.

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
