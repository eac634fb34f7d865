"""What `framefleet report` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.jobs.report.report import PAGE, VALUES, report_of, write_report
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.progress import watch_on
from framefleet.jobs.show.watch import wait_for
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.text import command


def show_report(
    output: str, storage_options: Mapping[str, Any], *, price: float | None, as_json: bool
) -> None:
    """Write both files and print where they are; or print the JSON alone."""
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
