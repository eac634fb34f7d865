"""`framefleet retry`: what is typed, and what it prints."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer

from framefleet.jobs.options import JobOrOutput, Quiet, Sets, SummaryAsJson, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout

if TYPE_CHECKING:
    from framefleet.jobs.job.schema import Job


_MAX_MESSAGE = 200  # characters: a line or two


_ErrorTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--error", metavar="TYPE", help="Include only rows with this error, e.g. OutOfMemory; repeatable."
    ),
]


def retry_command(
    job: JobOrOutput,
    error_types: _ErrorTypes = None,
    sets: Sets = None,
    as_json: SummaryAsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Render only the rows that failed. `render` does this too, with all other rows that have no record yet.

    Exit codes are those of `render`.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.render.claimed_job import job_of

        found = job_of(job, sets or [])

        code = show_retry(found, error_types=frozenset(error_types or []), as_json=as_json, quiet=quiet)
    raise typer.Exit(code)


def show_retry(job: Job, *, error_types: Collection[str], as_json: bool = False, quiet: bool = False) -> int:
    """Print what failed and render it again; return the exit code."""
    from framefleet.cluster.driver.progress import Summary
    from framefleet.jobs.render.command import show_render, summary_json
    from framefleet.jobs.retry.retry import rows_to_retry
    from framefleet.pipeline.outputs.stores.store import Store

    failed = rows_to_retry(job, error_types)
    for kind, count in failed.num_by_type.most_common():
        said = failed.examples[kind].partition("\n")[0][:_MAX_MESSAGE]
        if not quiet:
            (stderr if as_json else stdout).say(f"{count:,} rows failed by {kind}, as: {said}")
    if not failed.row_ids:
        kinds = f" by {', '.join(sorted(error_types))}" if error_types else ""
        store = Store(job.output, job.storage_options)
        if not quiet:
            stderr.say(f"nothing to retry: no row of {store.url_of('')} failed{kinds}")
        if as_json:
            stdout.say(summary_json(Summary(done=0, failed=0, elapsed_s=0.0, mean_batch=None, store=store)))
        return 0
    return show_render(job, only=failed.row_ids, as_json=as_json, quiet=quiet)
