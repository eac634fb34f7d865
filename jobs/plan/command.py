"""`framefleet plan`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import (
    JobFile,
    ModelPlace,
    NumSteps,
    OutputPlace,
    Prompts,
    Seeds,
    Sets,
    Sweeps,
    TablePlace,
    Verbose,
    Workers,
)
from framefleet.jobs.show.console import reporting
from framefleet.pipeline.errors import JobError


def plan_command(
    job: JobFile = None,
    table: TablePlace = None,
    prompts: Prompts = None,
    seeds: Seeds = None,
    sweeps: Sweeps = None,
    model: ModelPlace = None,
    output: OutputPlace = None,
    workers: Workers = None,
    steps: NumSteps = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Plan only the first N rows of the table.", metavar="N"),
    ] = None,
    sets: Sets = None,
    hollow: Annotated[
        bool,
        typer.Option("--hollow", help="Also call the pipeline, without weights, once for each shape."),
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Do the same, then render some rows of each shape here and predict what all rows take.",
        ),
    ] = False,
    price: Annotated[
        float | None, typer.Option("--price", help="Price of one GPU for one hour, for --probe.", min=0)
    ] = None,
    gpu_memory: Annotated[
        str | None,
        typer.Option(
            "--gpu-memory",
            metavar="24GB",
            help="Memory of the GPU that will render, e.g. 24GB. Default: this machine's.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
    verbose: Verbose = False,
) -> None:
    """Read and check everything, and print what `render` or `train` would do. Writes nothing.

    A job file with `train:` is a training's.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import is_training, load_job, load_job_as
        from framefleet.jobs.job.schema import TrainJob
        from framefleet.jobs.job.sweep_options import short_sets, sweep_sets

        swept = sweep_sets(prompts or [], seeds, sweeps or [])
        given = [*swept, *short_sets(workers, steps), *(sets or [])]
        if is_training(job, given):
            if limit is not None:
                raise JobError("--limit: the job is a training", "leave it out")
            training = load_job_as(TrainJob, job, given, table=table, model=model, output=output)
            from framefleet.jobs.plan.shown_training import show_train_plan

            show_train_plan(training, probe=probe, as_json=as_json)
            return
        loaded = load_job(job, given, table=table, model=model, output=output)
        from framefleet.jobs.plan.memory import read_memory
        from framefleet.jobs.plan.plan import PlanOptions  # takes seconds: a mistake is told before
        from framefleet.jobs.plan.shown import show_plan

        card = None if gpu_memory is None else read_memory(gpu_memory)
        wanted = PlanOptions(hollow=hollow, probe=probe, price=price, gpu_memory=card, limit=limit)
        show_plan(loaded, wanted, as_json=as_json)
