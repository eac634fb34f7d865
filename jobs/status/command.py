"""`framefleet status`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import AsJson, OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_Watch = Annotated[bool, typer.Option("--watch", "-w", help="Refresh every few seconds until the job ends.")]
_Every = Annotated[
    float,
    typer.Option("--every", min=1.0, metavar="SECONDS", help="Seconds between two refreshes of --watch."),
]


def status_command(
    output: OutputToRead,
    watch: _Watch = False,
    every_s: _Every = 5.0,
    as_json: AsJson = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Show the progress of an output: rows done, failed and left, rate, time left, workers and last errors.

    Reads the output's files, from anywhere; needs no cluster. --watch ends when no driver is at work.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import set_values
        from framefleet.jobs.status.shown import show_status, watch_status

        options = set_values(sets or []).get("storage_options", {})
        if watch:
            watch_status(output, options, every_s=every_s, as_json=as_json)
        else:
            show_status(output, options, as_json=as_json)
