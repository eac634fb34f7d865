"""`framefleet train`: what is typed, and what it prints."""

from __future__ import annotations

import json
from dataclasses import asdict

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
        from framefleet.jobs.job.file import load_job
        from framefleet.jobs.show.progress import watch_on
        from framefleet.jobs.show.watch import duration
        from framefleet.plugins.train.job import TrainJob

        loaded = load_job(job, sets or [], table=table, model=model, output=output, kind=TrainJob)
        quiet_libraries()
        from framefleet.plugins.train.train import train_job

        with watch_on(stderr, quiet=quiet) as watch:
            summary = train_job(loaded, watch)
        if as_json:
            stdout.say(json.dumps(asdict(summary)))
            return
        if not quiet:
            took = f"{summary.steps_done:,} steps trained in {duration(summary.elapsed_s)}"
            stderr.say(
                took if summary.steps_done else f"nothing to do: all {summary.steps:,} steps are trained"
            )
        stdout.say(summary.result)
