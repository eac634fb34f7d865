"""`framefleet train`: what is typed, and what it prints."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from framefleet.jobs.options import (
    JobFile,
    LogFormat,
    ModelPlace,
    OutputPlace,
    Quiet,
    Sets,
    SummaryAsJson,
    TablePlace,
    Verbose,
)
from framefleet.jobs.show.console import reporting, stderr, stdout
from framefleet.jobs.show.terminal import quiet_libraries

if TYPE_CHECKING:
    from framefleet.jobs.job.schema import TrainJob


def train_command(
    job: JobFile = None,
    table: TablePlace = None,
    model: ModelPlace = None,
    output: OutputPlace = None,
    log_format: LogFormat = "text",
    sets: Sets = None,
    as_json: SummaryAsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train or fine-tune a model on a table of videos. Run it again to continue after an interruption.

    Exit codes: 0 trained; 2 bad job, table or model; 3 fleet or store lost; 70 a bug in framefleet;
    129, 130 or 143 interrupted.
    """
    with reporting(verbose=verbose, resumable=True, log_format=log_format):
        from framefleet.jobs.job.file import load_job_as
        from framefleet.jobs.job.schema import TrainJob

        loaded = load_job_as(TrainJob, job, sets or [], table=table, model=model, output=output)

        show_train(loaded, as_json=as_json, quiet=quiet)


def show_train(job: TrainJob, *, as_json: bool = False, quiet: bool = False) -> None:
    """Train; print where the weights are, or the whole summary as JSON."""
    from framefleet.jobs.show.headline import duration
    from framefleet.jobs.show.progress import watch_on

    quiet_libraries()
    from framefleet.jobs.train.train import train_job

    with watch_on(stderr, quiet=quiet) as watch:
        summary = train_job(job, watch)
    if as_json:
        stdout.say(json.dumps(asdict(summary)))
        return
    if quiet:
        pass
    elif summary.steps_done:
        stderr.say(f"{summary.steps_done:,} steps trained in {duration(summary.elapsed_s)}")
    else:
        stderr.say(f"nothing to do: all {summary.steps:,} steps are trained")
    stdout.say(summary.result)
