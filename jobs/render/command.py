"""`framefleet render`, as it is typed."""

from __future__ import annotations

import typer

from framefleet.jobs.options import (
    JobFile,
    Limit,
    ModelPlace,
    NumSteps,
    OutputPlace,
    Prompts,
    Quiet,
    Seeds,
    Sets,
    SummaryAsJson,
    Sweeps,
    TablePlace,
    Verbose,
    Workers,
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
    workers: Workers = None,
    steps: NumSteps = None,
    limit: Limit = None,
    sets: Sets = None,
    as_json: SummaryAsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Render every row of a table that has no record yet. Run it again to continue after an interruption.

    Exit codes: 0 every row has a record; 1 some rows failed, clips are gone, or the budget is spent; 2 bad
    job, table or model; 3 fleet or store lost; 70 a defect of framefleet; 129, 130 or 143 interrupted.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.job.file import load_job
        from framefleet.jobs.job.sweep_options import short_sets, sweep_sets

        swept = sweep_sets(prompts or [], seeds, sweeps or [])
        given = [*swept, *short_sets(workers, steps), *(sets or [])]
        loaded = load_job(job, given, table=table, model=model, output=output)
        from framefleet.jobs.render.shown import show_render  # takes seconds: a mistake is told before

        code = show_render(loaded, limit=limit, as_json=as_json, quiet=quiet)
    raise typer.Exit(code)
