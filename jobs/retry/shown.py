"""What `framefleet retry` does, and what it prints about it."""

from __future__ import annotations

from collections.abc import Collection

from framefleet.cluster.driver.progress import Summary
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.shown import show_render, summary_json
from framefleet.jobs.retry.retry import rows_to_retry
from framefleet.jobs.show.console import stderr, stdout
from framefleet.pipeline.outputs.stores.store import Store

_MAX_MESSAGE = 200  # characters: a line or two


def show_retry(job: Job, *, error_types: Collection[str], as_json: bool = False, quiet: bool = False) -> int:
    """Print what failed and render it again; return the exit code."""
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
