"""`framefleet render`, as it is typed."""

from __future__ import annotations

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

    Exit codes: 0 every row has a record; 1 some rows failed, clips are gone, or the budget is spent; 2 bad
    job, table or model; 3 fleet or store lost; 70 a defect of framefleet; 129, 130 or 143 interrupted.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.job.file import load_job
        from framefleet.jobs.job.sweep_options import sweep_sets

        swept = sweep_sets(prompts or [], seeds, sweeps or [])
        loaded = load_job(job, [*swept, *(sets or [])], table=table, model=model, output=output)
        from framefleet.jobs.render.shown import show_render  # takes seconds: a mistake is told before

        code = show_render(loaded)
    raise typer.Exit(code)
