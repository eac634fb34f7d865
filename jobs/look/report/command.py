"""`framefleet report`: what is typed, and what it prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from framefleet.jobs.options import OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout
from framefleet.pipeline.text import command

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

        options = set_values(sets or []).get("storage_options", {})
        show_report(output, options, price=price, as_json=as_json)


def show_report(
    output: str, storage_options: Mapping[str, Any], *, price: float | None, as_json: bool
) -> None:
    """Write both files and print where they are; or print the JSON alone."""
    from framefleet.jobs.look.report.report import PAGE, VALUES, report_of, write_report
    from framefleet.jobs.show.progress import watch_on
    from framefleet.jobs.show.watch import wait_for
    from framefleet.pipeline.outputs.output import Output

    opened = Output.open_rendered(output, storage_options)
    store = opened.store
    with watch_on(stderr) as watch:
        wait_for(watch, f"reading the records of {store.url_of('')}")
        found = report_of(store, price=price)
    if as_json:
        stdout.say(found.to_json(is_ascii=True).rstrip("\n"))
        return
    write_report(store, found)
    if found.cost:
        unit = "GPU hours" if found.gpus_per_worker else "worker hours"
        stdout.say(f"cost: {found.cost.total:,.2f}, {found.cost.gpu_hours:,.3g} {unit}")
    stdout.say(f"report: {store.url_of(PAGE)}")
    stdout.say(f"json:   {store.url_of(VALUES)}")
    if drafts := opened.drafts:
        stderr.say(f"drafts are not in it: {command('report', drafts.url)}")
