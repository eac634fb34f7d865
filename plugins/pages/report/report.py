"""From an output to its report: a value for Python, and `report.html` and `report.json` in the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import framefleet
from framefleet.jobs.job.job_json import gpus_per_worker
from framefleet.jobs.look.status.status import Status, StatusReader, figures_of, newest_clips
from framefleet.pipeline.metrics import WORKER_SECONDS
from framefleet.pipeline.outputs.layout import preview_path
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of, record_tables
from framefleet.pipeline.outputs.row_states import FailedRow, OutputCounts, failed_rows
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.plugins.pages.report.clip_yield import yield_of
from framefleet.plugins.pages.report.figures import (
    COLUMNS,
    COMPUTE,
    LICENSE,
    MAX_NAMES,
    MODEL_NAME,
    THE_REST,
    Figures,
    mapping_in,
)
from framefleet.plugins.pages.report.values import (
    AuditedRows,
    Clips,
    Cost,
    FailedAlike,
    ModelTime,
    Report,
    RowsByState,
    Throughput,
    UsedEnvironment,
    UsedModel,
)

PAGE, VALUES = "report.html", "report.json"  # in the output
_MAX_FAILURES = 20  # messages that are shown
_MAX_WORKERS = 200  # of the JSON: the busiest
_MAX_ENVIRONMENTS = 20  # of the most rows; models too
_MAX_CAUSES = 20
_MAX_STILLS, _MAX_STILL = 8, 1 << 16  # of the page; bytes of one


def report(
    output: str,
    *,
    price: float | None = None,
    accepted: str | None = None,
    ceiling: float | None = None,
    storage_options: Mapping[str, Any] | None = None,
    write: bool = True,
) -> Report:
    """Return the report of an output, and write report.html and report.json into it.

    price: of a GPU hour, in any currency. accepted: a condition in SQL on the clips that count, by columns of
    records and `stars`. ceiling: rows that one GPU can render in an hour, as it was measured. write: False
    writes nothing. Needs no cluster. Raises JobError where there is no output, or its records are not ours.
    """
    store = Output.open_rendered(output, storage_options).store
    made = report_of(store, price=price, accepted=accepted, ceiling=ceiling)
    if write:
        write_report(store, made)
    return made


def write_report(store: Store, found: Report) -> None:
    """Put both files into an output."""
    from framefleet.plugins.pages.report.page import page_of  # imports matplotlib

    store.write(PAGE, page_of(found, _stills(store)).encode("utf-8", "replace"))
    store.write(VALUES, found.to_json().encode("utf-8", "replace"))


def report_of(
    store: Store, *, price: float | None = None, accepted: str | None = None, ceiling: float | None = None
) -> Report:
    """Return the report of an output; memory does not grow with its records."""
    figures, gpus, spent = _figures(store), gpus_per_worker(store), figures_of(store)
    by_type, failures = _failures(store)
    work, status = _work(figures), StatusReader(Output(store)).status()
    hours = (WORKER_SECONDS.total(spent) or work.busy_s + work.idle_s) / 3600 * (gpus or 1.0)
    reported, by_remark = status.audits, dict(figures.remarks.most_common())
    share = reported.most_wrong / figures.num_rows if reported and figures.num_rows else None
    return Report(
        framefleet=framefleet.__version__,
        made_at=datetime.now(UTC).replace(microsecond=0),
        output=store.url_of(""),
        rows=_rows(status, Output(store).counts()),
        clips=Clips(
            num_bytes=figures.num_bytes,
            seconds=figures.clip_s,
            mean_batch=figures.batch_sum / figures.num_rows if figures.num_rows else None,
            batch_sizes=dict(sorted(figures.batches.items())),
            shapes=dict(figures.shapes.most_common()),
            peak_memory_bytes=figures.peak_memory_bytes,
        ),
        throughput=Throughput(
            started=_moment(figures.started),
            finished=_moment(figures.finished),
            bin_s=figures.timeline.width_s,
            bins=figures.timeline.bins(),
        ),
        work=work,
        audits=AuditedRows(said=reported, wrong_share=share, by_remark=by_remark),
        spent=spent,
        gpus_per_worker=gpus,
        gpu_hours=hours,
        cost=None if price is None else _cost(price, hours, figures.num_rows),
        clip_yield=yield_of(
            store,
            accepted=accepted,
            ceiling=ceiling and ceiling * (gpus or 1.0),
            hour_price=price and price * (gpus or 1.0),
        ),
        failures_by_type=dict(by_type.most_common()),
        failures=failures,
        environments=tuple(
            UsedEnvironment(rows=rows, values=mapping_in(text))
            for text, rows in figures.environments.most_common(_MAX_ENVIRONMENTS)
        ),
        models=tuple(
            UsedModel(
                rows=rows,
                model=key[0],
                digest=key[1],
                license=key[2],
                name=key[3],
                busy_s=figures.model_s[key],
            )
            for key, rows in figures.models.most_common(_MAX_ENVIRONMENTS)
        ),
    )


def _stills(store: Store) -> list[tuple[str, bytes]]:
    """Return prompts and previews of the newest clips; a clip without a preview is left out."""
    stills = []
    for clip in newest_clips(store, _MAX_STILLS):
        with suppress(FileNotFoundError):  # never made
            stills.append((clip.prompt, store.read(preview_path(clip.path), _MAX_STILL)))
    return stills


def _figures(store: Store) -> Figures:
    figures = Figures()
    later = {COMPUTE, LICENSE, MODEL_NAME} & {*record_schema_of(store).names}
    names = [*COLUMNS, *sorted(later)]
    for table in record_tables(store, names):
        figures.add(table)
    figures.timeline.settle()
    return figures


def _rows(status: Status, counts: OutputCounts) -> RowsByState:
    done, failed = counts.done, counts.failed
    reported = None if status.num_rows is None else max(status.num_rows, done + failed)
    total = reported if counts.rows is None else counts.rows
    left = None if total is None else total - done - failed
    return RowsByState(
        total=total, done=done, failed=failed, invalid=status.num_invalid, left=left, former=counts.former
    )


def _work(figures: Figures) -> ModelTime:
    workers = sorted(figures.workers.values(), key=lambda one: (-(one.busy_s + one.idle_s), one.name))
    causes = {cause for one in workers for cause in one.idle}
    sums = {cause: sum(one.idle.get(cause, 0.0) for one in workers) for cause in causes}
    return ModelTime(
        busy_s=sum(one.busy_s for one in workers),
        idle_s=sum(one.idle_s for one in workers),
        idle=dict(sorted(sums.items(), key=lambda pair: -pair[1])[:_MAX_CAUSES]),
        is_estimated=figures.num_estimated > 0,
        num_workers=len(workers),
        workers=tuple(workers[:_MAX_WORKERS]),
    )


def _failures(store: Store) -> tuple[Counter[str], tuple[FailedAlike, ...]]:
    """Return how many rows failed by type of error, and by message for the most frequent."""
    by_type: Counter[str] = Counter()
    alike: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], FailedRow] = {}
    for row in failed_rows(store):
        kind = row.error_type if row.error_type in by_type or len(by_type) < MAX_NAMES else THE_REST
        by_type[kind] += 1
        message = (kind, row.message)
        if message in last or len(last) < MAX_NAMES:
            alike[message] += 1
            last.setdefault(message, row)
    shown = alike.most_common(_MAX_FAILURES)
    return by_type, tuple(FailedAlike(rows=count, row=last[message]) for message, count in shown)


def _cost(price: float, hours: float, done: int) -> Cost:
    per_clip = hours * price / done if done else None
    return Cost(price_per_gpu_hour=price, gpu_hours=hours, total=hours * price, per_clip=per_clip)


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
