"""`framefleet repair`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import AsJson, JobOrOutput, Sets, Verbose
from framefleet.jobs.show.console import reporting

_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")]


def repair_command(
    job: JobOrOutput,
    dry_run: _DryRun = False,
    as_json: AsJson = False,
    sets: Sets = None,
    verbose: Verbose = False,
) -> None:
    """Read every file of an output, remove what is damaged, and render what is missing.

    Exit codes are those of `render`; with --dry-run 0: all is well, 1: something is to be repaired.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.repair.shown import show_repair

        code = show_repair(job, dry_run=dry_run, as_json=as_json, sets=sets or [])
    raise typer.Exit(code)
