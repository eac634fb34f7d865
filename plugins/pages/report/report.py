"""Make the report of an output, as a Python value and as `report.html` and `report.json` in the output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import framefleet
from framefleet.api.engines import paid_before
from framefleet.api.models import is_denoiser
from framefleet.api.outputs import FailedRow, Output, OutputCounts, Store, preview_path
from framefleet.api.texts import parse_object
from framefleet.jobs.job.job_json import gpus_per_worker
from framefleet.pipeline.metrics import BUSY, LOAD, NETWORKS, WORKER_SECONDS, of_runs
from framefleet.plugins.pages.report import values
from framefleet.plugins.pages.report.figures import (
    COLUMNS,
    COMPUTE,
    MAX_NAMES,
    THE_REST,
    Figures,
    positive,
    tally,
)
from framefleet.plugins.picks import Pick, labelled_records, read_picks
from framefleet.plugins.watch.status import Status, StatusReader, figures_of

PAGE, VALUES = "report.html", "report.json"  # in the output
_MAX_FAILURES = 20  # messages that are shown
_MAX_WORKERS = 200  # of the JSON: the busiest
_MAX_ENVIRONMENTS = 20  # of the most rows; models too
_MAX_CAUSES = 20
_MAX_GPUS = 16  # of one machine
_MAX_STILLS, _MAX_STILL = 8, 1 << 16  # of the page; bytes of one


def report(
    output: str,
    *,
    price: float | None = None,
    accepted: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    write: bool = True,
) -> values.Report:
    """Return the report of an output, and write report.html and report.json into it.

    price: of a GPU hour, in any currency. accepted: a condition in SQL for clips that count, on columns of
    records, `stars` and `note`. write: False writes nothing. Needs no cluster. Raises JobError if there is no
    output, or its records are invalid.
    """
    store = Output.open_rendered(output, storage_options).store
    made = report_of(store, price=price, accepted=accepted)
    if write:
        write_report(store, made)
    return made


def write_report(store: Store, made: values.Report) -> None:
    """Write both files into an output. The page shows the newest clips that have a preview."""
    from framefleet.plugins.pages.report.live_page import newest_clips  # imports matplotlib, as the next
    from framefleet.plugins.pages.report.page import page_of

    stills = []
    for clip in newest_clips(store, _MAX_STILLS):
        with suppress(FileNotFoundError):  # never made
            stills.append((clip.prompt, store.read(preview_path(clip.path), _MAX_STILL)))
    store.write(PAGE, page_of(made, stills).encode("utf-8", "replace"))
    store.write(VALUES, made.to_json().encode("utf-8", "replace"))


def report_of(store: Store, *, price: float | None = None, accepted: str | None = None) -> values.Report:
    """Return the report of an output, in constant memory."""
    figures, gpus, spent = Figures(), gpus_per_worker(store), figures_of(store)
    for table in Output(store).records(COLUMNS):
        figures.add(table)
    figures.timeline.settle()
    by_type, failures = _failures(store)
    work, status = _work(figures), StatusReader(Output(store)).status()
    hours = (WORKER_SECONDS.total(spent) or work.busy_s + work.idle_s) / 3600 * (gpus or 1.0)
    inner = {name: figures_of(one.store) for name, one in Output(store).inner.items()}
    inner_hours = {name: WORKER_SECONDS.total(one) / 3600 * (gpus or 1.0) for name, one in inner.items()}
    all_hours, paid = hours + sum(inner_hours.values()), paid_before(store)
    cost = all_hours * (price or 0.0) + paid if paid or price is not None else None
    reported, by_remark = status.audits, dict(figures.remarks.most_common())
    share = reported.most_wrong / figures.num_rows if reported and figures.num_rows else None
    return values.Report(
        framefleet=framefleet.__version__,
        made_at=datetime.now(UTC).replace(microsecond=0),
        output=store.url_of(""),
        rows=_rows(status, Output(store).counts()),
        clips=values.Clips(
            num_bytes=figures.num_bytes,
            seconds=figures.clip_s,
            mean_batch=figures.batch_sum / figures.num_rows if figures.num_rows else None,
            batch_sizes=dict(sorted(figures.batches.items())),
            shapes=dict(figures.shapes.most_common()),
            peak_memory_bytes=figures.peak_memory_bytes,
        ),
        throughput=values.Throughput(
            started=_moment(figures.started),
            finished=_moment(figures.finished),
            bin_s=figures.timeline.width_s,
            bins=figures.timeline.bins(),
        ),
        work=work,
        audits=values.AuditedRows(said=reported, wrong_share=share, by_remark=by_remark),
        spent=spent,
        gpus_per_worker=gpus,
        gpu_idle=gpu_idle(WORKER_SECONDS.by_label(spent), figures.environments),
        gpu_hours=hours,
        cost=None
        if cost is None
        else values.Cost(
            price_per_gpu_hour=price or 0.0,
            gpu_hours=all_hours,
            inner_gpu_hours=inner_hours,
            paid=paid,
            total=cost,
            per_clip=cost / figures.num_rows if figures.num_rows else None,
        ),
        clip_yield=_yield_of(store, spent, inner, accepted=accepted, cost=cost),
        failures_by_type=dict(by_type.most_common()),
        failures=failures,
        environments=tuple(
            values.UsedEnvironment(rows=rows, values=parse_object(text))
            for text, rows in figures.environments.most_common(_MAX_ENVIRONMENTS)
        ),
        models=tuple(
            values.UsedModel(
                rows=rows,
                model=key[0],
                digest=key[1],
                license=key[2],
                name=key[3],
                busy_s=figures.model_s[key],
            )
            for key, rows in figures.models.most_common(_MAX_ENVIRONMENTS)
        ),
        notes=status.notes,
    )


def gpu_idle(spent: Mapping[str, float], environments: Counter[str]) -> dict[str, float]:
    """Return the idle share of each GPU of a worker, by its networks, as records of most rows say these.

    A GPU is busy while one of its networks computes. What plain calls take is of the first one's.
    """
    environment = next((parse_object(text) for text, _ in environments.most_common(1)), {})
    texts = str(environment.get("placed") or "").split("; ")[:_MAX_GPUS]
    placed = [names.split(", ") for names in texts]
    whole = sum(seconds for cause, seconds in spent.items() if cause != LOAD)
    if len(placed) < 2 or not whole:
        return {}
    idle = {}
    for number, names in enumerate(placed):
        causes = {_cause(name) for name in names if name}
        causes |= {*BUSY} - {*NETWORKS} if number == 0 else set()
        # With `layers` one GPU computes at a time.
        turns = len(placed) if environment.get("placement") == "layers" else 1
        busy = sum(spent.get(cause, 0.0) / (turns if cause == "denoise" else 1) for cause in causes)
        idle[f"{number}: {', '.join(names)}"] = 1 - busy / whole
    return idle


def _cause(network: str) -> str:
    if is_denoiser(network):
        return "denoise"
    return "encode" if "encoder" in network else "decode"


def _rows(status: Status, counts: OutputCounts) -> values.RowsByState:
    done, failed = counts.done, counts.failed
    reported = None if status.num_rows is None else max(status.num_rows, done + failed)
    total = reported if counts.rows is None else max(counts.rows, reported or 0)  # with rows added since
    left = None if total is None else total - done - failed
    return values.RowsByState(
        total=total, done=done, failed=failed, invalid=status.num_invalid, left=left, former=counts.former
    )


def _work(figures: Figures) -> values.ModelTime:
    workers = sorted(figures.workers.values(), key=lambda one: (-(one.busy_s + one.idle_s), one.name))
    causes = {cause for one in workers for cause in one.idle}
    sums = {cause: sum(one.idle.get(cause, 0.0) for one in workers) for cause in causes}
    return values.ModelTime(
        busy_s=sum(one.busy_s for one in workers),
        idle_s=sum(one.idle_s for one in workers),
        idle=dict(sorted(sums.items(), key=lambda pair: -pair[1])[:_MAX_CAUSES]),
        num_workers=len(workers),
        workers=tuple(workers[:_MAX_WORKERS]),
    )


def _failures(store: Store) -> tuple[Counter[str], tuple[values.FailedAlike, ...]]:
    """Return how many rows failed by type of error, and by message for the most frequent."""
    by_type: Counter[str] = Counter()
    alike: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], FailedRow] = {}
    for row in Output(store).failures(with_inner=False):
        kind = tally(by_type, row.error_type, 1, THE_REST)
        message = (kind, row.message)
        if message in last or len(last) < MAX_NAMES:
            alike[message] += 1
            last.setdefault(message, row)
    shown = alike.most_common(_MAX_FAILURES)
    return by_type, tuple(values.FailedAlike(rows=num, row=last[message]) for message, num in shown)


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _yield_of(
    store: Store,
    spent: Mapping[str, float],
    inner: Mapping[str, Mapping[str, float]],
    *,
    accepted: str | None,
    cost: float | None,
) -> values.Yield | None:
    """Return the yield; None where no driver counted anything.

    spent: what all drivers counted. inner: the same of each inner output, by its name.
    accepted: a condition on records in SQL; None accepts all. cost: of everything.
    """
    # First: a condition that cannot be is refused also where there is nothing to divide by.
    of_accepted = None if accepted is None else _sums(_records(store, accepted))
    own, whole = WORKER_SECONDS.by_label(spent), WORKER_SECONDS.by_label(of_runs(spent, *inner.values()))
    if not (whole_s := sum(whole.values())):
        return None
    num_clips, clips_s = _sums(_records(store, None))
    num_accepted, accepted_s = of_accepted or (num_clips, clips_s)
    busy_s = sum(own.get(cause, 0.0) for cause in BUSY)
    seconds = {
        "accepted clips": accepted_s,
        "other clips": clips_s - accepted_s,
        **{name: WORKER_SECONDS.total(figures) for name, figures in inner.items()},
        "failed or repeated": max(0.0, busy_s - clips_s),
        "loading": own.get(LOAD, 0.0),
        "waiting": sum(waited for cause, waited in own.items() if cause not in (*BUSY, LOAD)),
    }
    return values.Yield(
        accepted=accepted,
        num_clips=num_clips,
        num_accepted=num_accepted,
        seconds={name: part for name, part in seconds.items() if part or name == "accepted clips"},
        networks_share=sum(whole.get(cause, 0.0) for cause in NETWORKS) / whole_s,
        cost_per_accepted=cost / num_accepted if cost is not None and num_accepted else None,
    )


def _records(store: Store, condition: str | None) -> Iterator[pa.Table]:
    """Yield what records took, of those for which the condition is true."""
    if not condition:
        return Output(store).records([COMPUTE])
    picks = {
        row_id: Pick(stars=pick.stars if "stars" in pick.model_fields_set else None, note=pick.note or None)
        for row_id, pick in read_picks(store).items()
    }
    return labelled_records(Output(store), [COMPUTE], condition, picks, place="accepted")


def _sums(tables: Iterator[pa.Table]) -> tuple[int, float]:
    num, seconds = 0, 0.0
    for table in tables:
        num += len(table)
        seconds += pc.sum(positive(table[COMPUTE])).as_py() or 0.0
    return num, seconds
