"""`framefleet train`, as it is typed."""

from __future__ import annotations

from framefleet.jobs.options import (
    JobFile,
    ModelPlace,
    OutputPlace,
    Quiet,
    Sets,
    SummaryAsJson,
    TablePlace,
    Verbose,
)
from framefleet.jobs.show.console import reporting


def train_command(
    job: JobFile = None,
    table: TablePlace = None,
    model: ModelPlace = None,
    output: OutputPlace = None,
    sets: Sets = None,
    as_json: SummaryAsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train or fine-tune a model on a table of videos. Run it again to continue after an interruption.

    Exit codes: 0 trained; 2 bad job, table or model; 3 fleet or store lost; 70 a defect of framefleet;
    129, 130 or 143 interrupted.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.job.file import load_job_as
        from framefleet.jobs.job.schema import TrainJob

        loaded = load_job_as(TrainJob, job, sets or [], table=table, model=model, output=output)
        from framefleet.jobs.train.shown import show_train  # takes seconds: a mistake is told before

        show_train(loaded, as_json=as_json, quiet=quiet)
