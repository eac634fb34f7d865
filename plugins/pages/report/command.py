"""`framefleet report`: what is typed, and what it prints."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from typer import Option

from framefleet.jobs.options import Every, OutputToRead, Port, StorageSets, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout
from framefleet.pipeline.text import command


def report_command(
    output: OutputToRead,
    price: Annotated[
        float | None,
        Option(
            "--price",
            min=0.0,
            metavar="PRICE",
            help="Price of a GPU for one hour, in any currency, e.g. 2.5. Adds the cost.",
        ),
    ] = None,
    accepted: Annotated[
        str | None,
        Option(
            "--accepted",
            metavar="SQL",
            help='Count only clips for which this is true, e.g. "stars >= 3" or "sharpness > 0.4". '
            "Default: all.",
        ),
    ] = None,
    ceiling: Annotated[
        float | None,
        Option(
            "--ceiling",
            min=0.0,
            metavar="ROWS",
            help="Highest number of rows per hour that you measured on one GPU; the report compares with it.",
        ),
    ] = None,
    serve: Annotated[
        bool, Option("--serve", help="Serve a page on this machine that follows the job and plays new clips.")
    ] = False,
    port: Port = 0,
    every_s: Every = 5.0,
    as_json: Annotated[bool, Option("--json", help="Print the report as JSON, and write nothing.")] = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Write report.html and report.json into an output: throughput, failures, cost and more.

    Shows rows by state, throughput, batch sizes, worker and idle time, failures, cost, environment and model.
    --serve writes nothing: it serves a live page of a job that is running. Needs no cluster.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import output_at

        if serve:
            from framefleet.plugins.pages.report.live_page import StatusServer

            with StatusServer(output_at(output, sets), port=port, every_s=every_s) as server:
                stdout.say(server.url)
                stderr.say("press Ctrl-C to stop")
                with suppress(KeyboardInterrupt):
                    server.wait()
            return
        from framefleet.jobs.show.progress import watch_on
        from framefleet.jobs.show.watch import wait_for
        from framefleet.plugins.pages.report.report import PAGE, VALUES, report_of, write_report

        opened = output_at(output, sets, is_rendered=True)
        store = opened.store
        with watch_on(stderr) as watch:
            wait_for(watch, f"reading the records of {opened.url}")
            made = report_of(store, price=price, accepted=accepted, ceiling=ceiling)
        if as_json:
            stdout.say(made.to_json(is_ascii=True).rstrip("\n"))
            return
        write_report(store, made)
        if made.cost:
            unit, cost = "GPU" if made.gpus_per_worker else "worker", made.cost
            hours = f"{cost.gpu_hours:,.3g} {unit} hours x {cost.price_per_gpu_hour:g}"
            stdout.say(f"cost: {cost.total:,.2f} ({hours})")
        if made.clip_yield:
            stdout.say(f"yield: {made.clip_yield.text()}")
        stdout.say(f"report: {store.url_of(PAGE)}")
        stdout.say(f"json:   {store.url_of(VALUES)}")
        for name, one in opened.inner.items():
            stderr.say(f"{name} have a report of their own: {command('report', one.url)}")
