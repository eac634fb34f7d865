"""`framefleet report`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_Price = Annotated[
    float | None,
    typer.Option(
        "--price", min=0.0, help="Price of a GPU for one hour, in any currency, e.g. 2.5. Adds the cost."
    ),
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON, and write nothing.")]


def report_command(
    output: OutputToRead,
    price: _Price = None,
    as_json: _AsJson = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Write report.html and report.json into an output: throughput, failures, cost and more.

    Rows by state, throughput, batch sizes, time of workers, idle time, failures, cost, environment, model.
    Reads the records, from anywhere; needs no cluster.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import set_values
        from framefleet.jobs.report.shown import show_report

        options = set_values(sets or []).get("storage_options", {})
        show_report(output, options, price=price, as_json=as_json)
