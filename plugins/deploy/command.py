"""The commands `framefleet submit` and `framefleet logs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from framefleet.api.commands import (
    AsJson,
    OutputToRead,
    Sets,
    StorageSets,
    stderr,
    stdout,
)
from framefleet.api.errors import JobError, command

_OwnFile = Annotated[Path, Argument(metavar="JOB.YAML", help="Job file.")]
_JobServer = Annotated[
    str | None,
    Option(
        "--address",
        metavar="URL",
        help="Ray job server, e.g. http://127.0.0.1:8265. Default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or "
        "the one on this machine.",
    ),
]
_RowId = Annotated[
    str | None,
    Argument(
        metavar="ROW_ID",
        help="Row to show: its row_id, its first digits (at least 4), or the name of its clip. Default: all "
        "rows with log lines.",
    ),
]
_Submitted = Annotated[
    bool,
    Option("--submitted", help="Print the output and state of the last submitted job for this output."),
]
_Follow = Annotated[
    bool, Option("--follow", "-f", help="Like --submitted, and keep printing until the job ends.")
]


def submit_command(job: _OwnFile, address: _JobServer = None, sets: Sets = None) -> None:
    """Submit a job to a Ray cluster. This machine may then be switched off.

    Returns at once. When its driver has started, watch and control the job through its output, from any
    machine, with `framefleet status`, `logs`, `pause` and `stop`.
    """
    from framefleet.api.jobs import load_job, store_of_job
    from framefleet.jobs.job.paths import absolute_paths, paths_in
    from framefleet.plugins.deploy.submission import program_at_end, submit

    loaded = load_job(job, sets or [])
    submission = submit(loaded, address=address)
    stdout.say(f"submitted to {submission.address} as {submission.submission_id}")
    output = store_of_job(loaded).url_of("")
    absolute_paths(values := loaded.model_dump(mode="json", exclude_unset=True))
    paths = [f"{one.place} {one.text}" for one in paths_in(values) if one.text.startswith("/")]
    if (program := program_at_end(values)).startswith("/"):
        paths.append(f"on_end.command {program}")
    if paths:
        places = ", ".join(paths)
        stderr.say(f"note: every machine of the cluster needs the files that are here at {places}")
    at = ("--address", address) if address else ()
    logs = command("logs", output, "--submitted", *at)
    stderr.say(f"to see it: {logs}")
    stderr.say(
        f"when its driver has started: {command('status', output)}; to end it: {command('stop', output)}"
    )


def logs_command(
    output: OutputToRead,
    row_id: _RowId = None,
    submitted: _Submitted = False,
    address: _JobServer = None,
    follow: _Follow = False,
    as_json: AsJson = False,
    sets: StorageSets = None,
) -> None:
    """Show what happened to a row: errors, lost workers, attempts, audits, and its result.

    Only reads the output's files, so it works on any machine that can reach them. --submitted asks the Ray
    cluster instead.
    """
    from framefleet.api.jobs import output_at, storage_options
    from framefleet.api.outputs import Store
    from framefleet.plugins.deploy.row_log import show_log

    if not (submitted or follow or address):
        show_log(output_at(output, sets), row_id, as_json=as_json)
        return
    if row_id:
        problem = "ROW_ID has no effect with --submitted, --follow and --address"
        raise JobError(problem, "leave it out; they show the last submitted job for the output")
    from framefleet.plugins.deploy.submission import find_submission, logs_of

    store = Store(output, storage_options(sets))
    submission = find_submission(address, store.url_of(""))
    for piece in logs_of(submission, follow=follow):
        stdout.say(piece.rstrip("\n"))
    if follow:
        submission = find_submission(address, store.url_of(""))
    stderr.say(f"{submission.submission_id} is {submission.state.lower()}: {submission.message}")
