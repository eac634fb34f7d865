"""The commands `framefleet stop`, `pause`, `resume` and `add`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from typer import Argument

from framefleet.api.commands import (
    OutputPlace,
    OutputToRead,
    Sets,
    StorageSets,
    SummaryAsJson,
    stderr,
    stdout,
)
from framefleet.api.errors import command, count_text
from framefleet.jobs.options import GivenJob


def stop_command(output: OutputToRead, sets: StorageSets = None) -> None:
    """Stop the job that writes to an output, from any machine. Run the job again to continue.

    Returns at once. Within ten seconds, the job starts to stop, as after Ctrl-C: its workers save their rows.
    """
    from framefleet.cluster.driver.lock import STOP

    url = _make_request(output, sets, STOP, "end")
    stderr.say(f"to see when it has ended: {command('status', url)}")


def pause_command(output: OutputToRead, sets: StorageSets = None) -> None:
    """Pause the job that writes to an output, from any machine. `framefleet resume` continues it.

    Returns at once. Within ten seconds, the workers start to save their rows and end, which frees their GPUs.
    The job itself keeps waiting.
    """
    from framefleet.cluster.driver.lock import PAUSE

    stderr.say(f"to continue: {command('resume', _make_request(output, sets, PAUSE, 'pause'))}")


def resume_command(output: OutputToRead, sets: StorageSets = None) -> None:
    """Continue a paused job, from any machine. Its workers start again and continue half-done rows."""
    from framefleet.plugins.watch.control import RESUME

    _make_request(output, sets, RESUME, "continue")


def _make_request(output: str, sets: StorageSets, what: str, verb: str) -> str:
    """Send a request to the output's driver, and print where it runs; return the output's URL."""
    from framefleet.api.jobs import output_at
    from framefleet.plugins.watch.control import ask_driver

    opened = output_at(output, sets)
    driver = ask_driver(opened, what)
    stdout.say(f"asked the driver on {driver.host} (pid {driver.pid}) to {verb}")
    if driver.state == "silent":
        since = f" for {driver.told_s:,.0f} s" if driver.told_s else ""
        stderr.say(
            f"it has reported nothing{since}, and may have been killed; see {command('status', opened.url)}"
        )
    return opened.url


_Rows = Annotated[
    str, Argument(metavar="TABLE", help="Rows to add: a Parquet, CSV or JSONL file, folder, glob or URL.")
]


def add_command(
    job: GivenJob,
    table: _Rows,
    sets: Sets = None,
    output: OutputPlace = None,
    as_json: SummaryAsJson = False,
) -> None:
    """Add rows to a job, whether it is running or not. They are checked here, and copied into the output.

    A running job renders them after the rows of its table, and confirms this within ten seconds. If no job is
    running, or it has a `--limit`, or it ends before it confirms, the next run renders them.
    """
    from framefleet.api.jobs import watch_on
    from framefleet.plugins.watch.add import add_rows

    with watch_on(stderr) as watch:
        added = add_rows(job, table, watch, sets or [], output=output)
    for line in added.left_out:
        stderr.say(f"left out: {line}")
    if as_json:
        stdout.say(json.dumps(asdict(added)))
    elif added.is_new:
        stdout.say(f"{count_text(added.num_rows, 'row')} added: {added.url}")
    else:
        stdout.say(f"{count_text(added.num_rows, 'row')} added before: {added.url}")
    stderr.say(added.outlook)
