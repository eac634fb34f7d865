"""`framefleet stop`, `pause`, `resume`, `add`, `submit` and `logs`: what is typed, and what they print."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from framefleet.jobs.options import (
    AsJson,
    JobOrOutput,
    OutputToRead,
    Sets,
    StorageSets,
    SummaryAsJson,
    Verbose,
)
from framefleet.jobs.show.console import reporting, stderr, stdout
from framefleet.pipeline.text import command

if TYPE_CHECKING:
    from framefleet.jobs.look.status.status import DriverSeen


def stop_command(output: OutputToRead, sets: StorageSets = None, verbose: Verbose = False) -> None:
    """Stop the job that writes to an output, from any machine. Run the job again to continue.

    Returns at once. Within ten seconds the job begins to stop, as after Ctrl-C: its workers save their rows.
    """
    with reporting(verbose=verbose):
        from framefleet.cluster.driver.lock import STOP
        from framefleet.jobs.control.control import ask_driver
        from framefleet.jobs.job.file import output_at

        opened = output_at(output, sets)
        _say_asked(ask_driver(opened, STOP), "end")
        stderr.say(f"it has ended once no driver is at work: {command('status', opened.url)}")


def pause_command(output: OutputToRead, sets: StorageSets = None, verbose: Verbose = False) -> None:
    """Pause the job that writes to an output, from any machine. `framefleet resume` continues it.

    Returns at once. Within ten seconds the workers begin to save their rows and end, which frees their GPUs.
    The job itself keeps waiting.
    """
    with reporting(verbose=verbose):
        from framefleet.cluster.driver.lock import PAUSE
        from framefleet.jobs.control.control import ask_driver
        from framefleet.jobs.job.file import output_at

        opened = output_at(output, sets)
        _say_asked(ask_driver(opened, PAUSE), "pause")
        stderr.say(f"to continue: {command('resume', opened.url)}")


def resume_command(output: OutputToRead, sets: StorageSets = None, verbose: Verbose = False) -> None:
    """Continue a paused job, from any machine. Its workers start again and continue half-done rows."""
    with reporting(verbose=verbose):
        from framefleet.jobs.control.control import resume_driver
        from framefleet.jobs.job.file import output_at

        _say_asked(resume_driver(output_at(output, sets)), "continue")


_Rows = Annotated[
    str, Argument(metavar="TABLE", help="Rows to add: a Parquet, CSV or JSONL file, folder, glob or URL.")
]


def add_command(
    job: JobOrOutput,
    table: _Rows,
    sets: Sets = None,
    as_json: SummaryAsJson = False,
    verbose: Verbose = False,
) -> None:
    """Add rows to a job, whether it is running or not. They are checked here, and copied into the output.

    A running job renders them after the rows of its table, and confirms this within ten seconds. If no job is
    running, or it ends before it confirms, the next run renders them.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.control.add import add_rows
        from framefleet.jobs.show.progress import watch_on

        with watch_on(stderr) as watch:
            added = add_rows(job, table, watch, sets or [])
        for line in added.left_out:
            stderr.say(f"left out: {line}")
        if as_json:
            stdout.say(json.dumps(asdict(added)))
        elif added.is_new:
            stdout.say(f"{added.num_rows:,} rows added: {added.url}")
        else:
            stdout.say(f"these {added.num_rows:,} rows were added before: {added.url}")
        if added.will_render:
            stderr.say("the job that runs will render them")
        elif added.will_render is None:
            stderr.say("the job that runs has not answered: if it ends without these rows, run it again")
        elif added.is_running:
            stderr.say("the job has ended: run it again to render them")
        else:
            stderr.say("no job runs: the next `framefleet render` renders them")


_OwnFile = Annotated[Path, Argument(metavar="JOB.YAML", help="Job file.")]
_JobServer = Annotated[
    str | None,
    Option(
        "--address",
        metavar="URL",
        help="Ray job server, e.g. http://127.0.0.1:8265. Default: that of the Ray on this machine. "
        "RAY_API_SERVER_ADDRESS and RAY_ADDRESS override it.",
    ),
]
_RowId = Annotated[
    str | None,
    Argument(metavar="ROW_ID", help="Row to show: its row_id. Default: all rows with log lines."),
]
_Submitted = Annotated[
    bool,
    Option(
        "--submitted", help="Print what the last submitted job of this output has printed, and its state."
    ),
]
_Follow = Annotated[
    bool, Option("--follow", "-f", help="Like --submitted, and keep printing until the job ends.")
]


def submit_command(
    job: _OwnFile, address: _JobServer = None, sets: Sets = None, verbose: Verbose = False
) -> None:
    """Submit a job to a Ray cluster. This machine may then be switched off.

    Returns at once. Follow and control the job by its output, from any machine, with `framefleet status`,
    `logs`, `pause` and `stop`.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.control.submission import submit
        from framefleet.jobs.job.file import load_job
        from framefleet.jobs.job.output import store_of_job

        loaded = load_job(job, sets or [])
        submission = submit(loaded, address=address)
        stdout.say(f"submitted to {submission.address} as {submission.submission_id}")
        output = store_of_job(loaded).url_of("")
        own = {"table": loaded.table, "output": loaded.output}
        if paths := [f"{name} {place}" for name, place in own.items() if place and "://" not in place]:
            stderr.say(f"note: the cluster must have the same files at {' and '.join(paths)}")
        stderr.say(f"to see it: {command('status', output)}; {command('logs', output)} --submitted")
        stderr.say(f"to end it: {command('stop', output)}")


def logs_command(
    output: OutputToRead,
    row_id: _RowId = None,
    submitted: _Submitted = False,
    address: _JobServer = None,
    follow: _Follow = False,
    as_json: AsJson = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Show what happened to a row: errors, lost workers, attempts, audits, and how it ended.

    Only reads the output's files, so it works on any machine that can reach them. --submitted asks the Ray
    cluster instead.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import output_at, storage_options
        from framefleet.jobs.look.failures import show_log
        from framefleet.pipeline.outputs.stores.store import Store

        if not (submitted or follow or address):
            show_log(output_at(output, sets), row_id, as_json=as_json)
            return
        from framefleet.cluster.fleet.submission import find_submission, logs_of

        store = Store(output, storage_options(sets))
        submission = find_submission(address, store.url_of(""))
        for piece in logs_of(submission, follow=follow):
            stdout.say(piece.rstrip("\n"))
        if follow:
            submission = find_submission(address, store.url_of(""))
        stderr.say(f"{submission.submission_id} is {submission.state.lower()}: {submission.message}")


def _say_asked(driver: DriverSeen, what: str) -> None:
    stdout.say(f"asked the driver on {driver.host} (pid {driver.pid}) to {what}")
