"""`framefleet render` and `framefleet plan`, as they are typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import (
    JobFile,
    ModelPlace,
    OutputPlace,
    Prompts,
    Seeds,
    Sets,
    Sweeps,
    TablePlace,
    Verbose,
)
from framefleet.jobs.show.console import reporting

Probe = Annotated[
    bool,
    typer.Option("--probe", help="Also call the pipeline, without weights, for each shape of the table."),
]


def render_command(
    job: JobFile = None,
    table: TablePlace = None,
    prompts: Prompts = None,
    seeds: Seeds = None,
    sweeps: Sweeps = None,
    model: ModelPlace = None,
    output: OutputPlace = None,
    sets: Sets = None,
    verbose: Verbose = False,
) -> None:
    """Render every row of a table that has no record yet. Run it again to go on after an interruption.

    Exit codes: 0 every row has a record; 1 some rows failed, or clips are gone; 2 bad job, table or model;
    3 fleet or store lost; 70 a defect of framefleet; 129, 130 or 143 interrupted.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.job.file import load_job
        from framefleet.jobs.job.sweep_options import sweep_sets

        swept = sweep_sets(prompts or [], seeds, sweeps or [])
        loaded = load_job(job, [*swept, *(sets or [])], table=table, model=model, output=output)
        from framefleet.jobs.render.shown import show_render  # takes seconds: a mistake is told before

        code = show_render(loaded)
    raise typer.Exit(code)


def plan_command(
    job: JobFile = None,
    table: TablePlace = None,
    prompts: Prompts = None,
    seeds: Seeds = None,
    sweeps: Sweeps = None,
    model: ModelPlace = None,
    output: OutputPlace = None,
    sets: Sets = None,
    probe: Probe = False,
    verbose: Verbose = False,
) -> None:
    """Read and check everything, and print what `render` would do. Starts no worker, writes nothing."""
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import load_job
        from framefleet.jobs.job.sweep_options import sweep_sets

        swept = sweep_sets(prompts or [], seeds, sweeps or [])
        loaded = load_job(job, [*swept, *(sets or [])], table=table, model=model, output=output)
        from framefleet.jobs.render.shown import show_plan

        show_plan(loaded, probe=probe)
