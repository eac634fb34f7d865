"""`framefleet render` and `retry`: what is typed, and what they print."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from typer import Exit

from framefleet.cluster.driver.progress import Summary
from framefleet.jobs import options
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.watch import audit_line, duration, gone_line, server_lines
from framefleet.pipeline.errors import command, count_text
from framefleet.pipeline.metrics import REMEMBERED_SIZES, ROW_OUTCOMES, idle_shares
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.plugin import inner_outputs

if TYPE_CHECKING:
    from framefleet.jobs.job.schema import Job
    from framefleet.pipeline.outputs.stores.store import Store

_MAX_MESSAGE = 200  # characters: a line or two
_MAX_KINDS = 20
_IDLE = {
    "pipeline": "the pipeline's Python",
    "frames": "frames to be converted",
    "media": "encoding",
    "upload": "uploads",
    "store": "the store",
}


@options.with_groups
@options.resumable
def render_command(
    job: options.JobFile = None,
    tables: options.TablePlaces = None,
    typed_sets: Callable[[], list[str]] = options.option_sets,
    model: options.ModelPlace = None,
    output: options.OutputPlace = None,
    limit: options.Limit = None,
    metrics_port: options.MetricsPort = None,
    log_format: options.LogFormat = "text",
    as_json: options.SummaryAsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Render every row that has no record yet, including those that failed. Run it again to continue.

    Exit codes: 0 every valid row has a record; 1 rows failed, clips are gone, `until` fell short or the
    budget is spent; 2 bad job, table or model; 3 fleet or store lost; 70 a bug in framefleet; 129, 130 or 143
    interrupted.
    """
    from framefleet.jobs.job.file import load_job

    sets = typed_sets()
    loaded = load_job(job, sets, table=options.one_table(tables), model=model, output=output, is_run=True)

    with _imports_ahead(loaded):
        code = show_render(loaded, limit=limit, metrics_port=metrics_port, as_json=as_json, quiet=quiet)
    raise Exit(code)


def _imports_ahead(job: Job) -> AbstractContextManager[None]:
    """Import the workers' libraries before ours, if there is certainly something to render."""
    from framefleet.cluster.fleet.warm.start import may_fork, warm_ahead

    model = next(iter(job.by_name.values()))
    is_new = "://" not in job.output and not os.path.exists(os.path.join(job.output, RECORDS))
    may_begin = is_new and job.engine is None and may_fork(job.fleet, device=model.device)
    return warm_ahead(threads=model.threads) if may_begin else nullcontext()


def show_render(
    job: Job,
    *,
    only: Collection[str] | None = None,
    limit: int | None = None,
    metrics_port: str | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> int:
    """Render; return the exit code. only, limit: as in `render_job`. as_json: print the summary to stdout."""
    from framefleet.jobs.job.output import store_of_job
    from framefleet.jobs.render.render import render_job
    from framefleet.jobs.show.progress import serving_metrics, watch_on

    output = store_of_job(job).url_of("")
    if stderr.about is not None:
        stderr.about["job"] = output
    with watch_on(stderr, quiet=quiet) as shown, serving_metrics(shown, metrics_port, output=output) as watch:
        summary = render_job(job, watch, only=only, limit=limit)
    if as_json:
        stdout.say(summary.to_json())
    if quiet:
        for ended in (*summary.inner.values(), summary):
            for line in _problem_lines(ended, ended.store) if ended.store else ():
                stderr.say(line, level="warning")
    is_shown = not quiet and (not as_json or stderr.about is not None)
    return show_ending(summary, limit) if is_shown else summary.exit_code


def show_ending(summary: Summary, limit: int | None = None) -> int:
    """Print how a job ended, its inner outputs first; return the exit code, which a JSON log ends with."""
    for name, ended in {**summary.inner, "": summary}.items():
        assert ended.store is not None  # of every summary that `render_job` returns
        problems = _problem_lines(ended, ended.store)
        for line in ending_lines(ended, ended.store, limit):
            level = "warning" if line in problems else "info"
            stderr.say(f"{name}: {line}" if name else line, level=level)
    if stderr.about is not None:
        level = "warning" if summary.exit_code else "info"
        stderr.say(f"the run has ended with exit code {summary.exit_code}", level=level)
    return summary.exit_code


def ending_lines(summary: Summary, store: Store, limit: int | None = None) -> list[str]:
    """Return the lines to print when a job has ended. limit: of its rows."""
    from framefleet.jobs.doors import lines_at_end, notes

    if not summary.done and not summary.failed:
        is_all = not (summary.over_budget or summary.gone or summary.num_parts_gone)
        rows = "every row" if limit is None else f"each of the first {count_text(limit, 'row')}"
        lines = [f"nothing to do: {rows} has a record"] if is_all else []
        if summary.is_none_kept:
            kinds = [section for name, section in inner_outputs().items() if name in summary.inner]
            lines = [f"no {kind} was kept: none meets `{kind}.keep`" for kind in kinds]
    else:
        batch = f", mean batch {summary.mean_batch:.1f}" if summary.mean_batch else ""
        lines = [f"{count_text(summary.done, 'row')} rendered in {duration(summary.elapsed_s)}{batch}"]
        if num_adopted := ROW_OUTCOMES.of(summary.figures, "adopted"):
            lines.append(f"{num_adopted:,.0f} of them are clips that an earlier run left")
        if num_sizes := REMEMBERED_SIZES.total(summary.figures):
            sizes = count_text(num_sizes, "batch size")
            lines.append(f"reused after a check: {sizes} from earlier runs on this machine")
    lines += server_lines(summary.figures, summary.elapsed_s) or idle_lines(summary)
    lines += [
        f"audit: rows of {kind} differ if they are not rendered by plain calls, so each was"
        for kind in summary.apart
    ]
    if num_again := ROW_OUTCOMES.of(summary.figures, "withdrawn"):
        lines.append(f"audit: {num_again:,.0f} of these rows had a record, which was replaced")
    lines += [
        f"audit: rows of {kind} cannot be repeated: two plain calls of the same row differ"
        for kind in summary.unrepeatable
    ]
    if summary.apart:
        consequence = "rows of kinds that differ are plain calls from now on, batched ones are rendered again"
        lines.append(f"audit: {consequence}")
    if summary.audits and summary.done:
        prefix = "audit: of other kinds, " if summary.apart else "audit: "
        lines.append(prefix + audit_line(summary.audits, summary.done))
    lines += [
        f"{failed.section}: {count_text(failed.num, 'clip')} without {name}, e.g. {failed.example}"
        for name, failed in summary.lacking.items()
    ]
    lines += [*summary.unused, *notes(store)]
    lines += [f"records: {store.url_of(RECORDS)}", *_problem_lines(summary, store)]
    return [*lines, *lines_at_end(store)]


def _problem_lines(summary: Summary, store: Store) -> list[str]:
    """Return lines that say why rows have no clip."""
    lines = [gone_line(summary.gone)] if summary.gone else []
    if summary.over_budget:
        lines.append(f"stopped: {summary.over_budget}")
        lines.append(f"finished clips are kept; to continue: {summary.to_continue}")
    if summary.failed:
        rows = count_text(summary.failed, "row")
        lines.append(
            f"{rows} failed; run again to retry; to see why: {command('failures', store.url_of(''))}"
        )
    return lines


def idle_lines(summary: Summary) -> list[str]:
    """Return the share of time that models worked, and what they waited for, if at least 0.1 %."""
    if not (shares := idle_shares(summary.figures)):
        return []
    causes = [f"{_IDLE.get(cause, cause)} {part:.1%}" for cause, part in shares.items() if part >= 0.001]
    waited = f", and waited for {', '.join(causes)}" if causes else ""
    return [f"once loaded, the models worked {1 - sum(shares.values()):.1%} of the time{waited}"]


@options.resumable
def retry_command(
    job: options.GivenJob,
    error_types: options.ErrorTypes = None,
    metrics_port: options.MetricsPort = None,
    log_format: options.LogFormat = "text",
    sets: options.Sets = None,
    as_json: options.SummaryAsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Render only the rows that failed. (`render` renders these and all other rows without a record.)

    Exit codes are those of `render`.
    """
    from framefleet.jobs.job.file import load_job
    from framefleet.jobs.render.render import rows_to_retry
    from framefleet.pipeline.outputs.stores.store import Store

    loaded = load_job(job, sets or [])
    failed = rows_to_retry(loaded, frozenset(error_types or []))
    for kind, count in failed.num_by_type.most_common():
        message = failed.examples[kind].partition("\n")[0][:_MAX_MESSAGE]
        if not quiet:
            rows = count_text(count, "row")
            (stderr if as_json else stdout).say(f"{rows} failed with {kind}, e.g. {message}")
    code = 0
    if failed.row_ids:
        code = show_render(
            loaded, only=failed.row_ids, metrics_port=metrics_port, as_json=as_json, quiet=quiet
        )
    else:
        store = Store(loaded.output, loaded.storage_options)
        if not quiet:
            wanted = f" with {', '.join(sorted(error_types))}" if error_types else ""
            kinds = ", ".join(f"{kind} ({num:,})" for kind, num in failed.num_others.most_common(_MAX_KINDS))
            line = f"nothing to retry: no row of {store.url_of('')} failed{wanted}"
            stderr.say(line + f"; there are {kinds}" * bool(kinds))
        if as_json:
            nothing = Summary(done=0, failed=0, elapsed_s=0.0, mean_batch=None, store=store)
            stdout.say(nothing.to_json())
    raise Exit(code)
