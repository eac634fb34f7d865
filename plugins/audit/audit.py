"""Measure how far an output's clips are from those of another output, a model or a job for the same rows.

Rows are drawn by lot, rendered if the other side has no clip yet, decoded and compared. Lots, clips and
distances are stored in audits/<name>/ of the output, so the same call continues from there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from framefleet.api.clips import ClipColumn
from framefleet.api.commands import Callback, ClipsPace, ClipsProgress, Watch, wait_for
from framefleet.api.engines import PAID, paid_before
from framefleet.api.errors import JobError
from framefleet.api.jobs import Job, Progress, below, load_job, storage_options, store_of_job
from framefleet.api.outputs import Output, Store
from framefleet.api.texts import canonical_json, public_url
from framefleet.jobs.job.columns import check_recorded
from framefleet.jobs.job.output import base_of
from framefleet.plugins.audit.comparison import ComparedPair, KeptDistances, compare_clips
from framefleet.plugins.audit.lots import Lots, kept_salt
from framefleet.plugins.audit.pairs import AskedRow, RowPair, RowPairs, kind_in
from framefleet.plugins.audit.rendering import AUDITED, render_plainly
from framefleet.plugins.audit.report import AuditReport, DistanceTally
from framefleet.plugins.columns.column_lock import ColumnLock
from framefleet.plugins.columns.fill import each_answer
from framefleet.plugins.keep.replay.machines import REPORTS
from framefleet.plugins.keep.verify.verify import render_again

_FOLDER, _EXACTNESS = "audits", "exactness"  # folder of an output; column of its records
_CLIPS = "clips"  # folder of an audit
_SHARE, _LEVELS = 0.01, 2.0
_MOST_PARALLEL = 8  # pairs of clips in memory; with 81 frames of 720p, each takes half a gigabyte
_COLUMN = ClipColumn(name=_EXACTNESS, type=pa.string(), section="audit", function=None, is_late=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partner:
    """The other side of a comparison: another output, or rows rendered for it."""

    title: str
    name: str  # of its folder in audits/
    output: Output | None = None
    render: Callable[[Sequence[AskedRow]], Output] | None = None
    key: str | None = None  # column of the rendered records that names a row of the first output


def audit(
    output: str | Path,
    *,
    against: str | Path | None = None,
    again: Job | str | Path | Mapping[str, Any] | None = None,
    share: float | None = None,
    levels: float = _LEVELS,
    sets: Sequence[str] = (),
    on_progress: Callable[[Progress | ClipsProgress], None] | None = None,
) -> AuditReport:
    """Compare the clips of an output with others of the same rows; return how much they differ.

    against: another output, or a model that renders some rows with plain calls. again: instead, the output's
    job file or its content, to render some rows again. share: of the rows, chosen at random; None: 0.01, or
    all rows for two outputs. levels: a clip is off if a pixel differs by more than this, of 255. sets: keys
    of the job for plain calls, e.g. "model.dtype=fp32", or "storage_options.key=..." for both outputs. The
    same call continues after an interruption. Raises FramefleetError.
    """
    watch, other = Callback(on_progress), None if against is None else str(against)
    return audit_output(str(output), other, again, watch, share=share, levels=levels, sets=sets)


def audit_output(
    place: str,
    against: str | None,
    again: Job | str | Path | Mapping[str, Any] | None,
    watch: Watch,
    *,
    share: float | None,
    levels: float,
    sets: Sequence[str],
) -> AuditReport:
    """Audit an output, as `audit` does, and report to `watch`."""
    if share is not None and not 0 < share <= 1:
        raise JobError(f"share is {share:g}", "use a share of the rows, above 0 and up to 1, e.g. 0.01")
    if not 0 <= levels <= 255:  # NaN too
        raise JobError(f"levels is {levels:g}", "use 0 to 255")
    options = storage_options(sets, is_alone=False)
    output = Output.open_rendered(place, options)
    if against is not None and again is None:
        other = _output_at(against, options)
        if other is not None:
            if other.url == output.url:
                raise JobError(f"{other.url} is the output itself", "compare with another, or give --again")
            partner, share = Partner(title=other.url, name=_name_of(other.url), output=other), share or 1.0
        else:
            values = {"output": output.url, "inputs": {"base": output.url}}
            partner = _plain_calls(load_job(values, sets, table="rows", model=against), watch)
    elif again is not None and against is None:
        partner = _itself(load_job(again, sets), output, watch)
    else:
        raise JobError("there must be one thing to compare with", "use either --against or --again")
    return _compare(partner, output, watch, share=share or _SHARE, levels=levels)


def audit_job(job: Job, watch: Watch) -> AuditReport:
    """Compare a job's clips with plain calls of the model in `audit.against`."""
    against = job.audit.against
    assert against is not None
    partner, output = _plain_calls(job_of_plain_calls(job), watch), Output(store_of_job(job))
    return _compare(partner, output, watch, share=against.share, levels=against.levels)


def job_of_plain_calls(job: Job) -> Job:
    """Return a job with the model in `audit.against`, on the fleet of the audited job."""
    assert job.audit.against is not None
    model = job.audit.against.model
    values = {"output": job.output, "fleet": {"address": job.fleet.address}}  # an engine's has no GPUs
    plain = load_job(values, table="rows", model=model.path)
    places = {name: getattr(job, name) for name in ("retries", "storage_options")}
    places |= {} if job.engine else {"fleet": job.fleet}
    inputs = job.inputs.model_copy(update={"base": base_of(job)})
    return plain.model_copy(update={"model": model, "inputs": inputs, **places})


def _output_at(place: str, options: Mapping[str, Any]) -> Output | None:
    """Return the output at a place; None if it is not an output, but maybe a model."""
    try:
        return Output.open_rendered(place, options)
    except JobError:
        return None


def _plain_calls(job: Job, watch: Watch) -> Partner:
    assert job.model is not None
    name = _name_of(canonical_json(job.model.model_dump(mode="json")))
    place = below(job, f"{_FOLDER}/{name}/{_CLIPS}")
    title = f"plain calls of {public_url(job.model.path)}"
    return Partner(
        title=title, name=name, render=partial(render_plainly, job, place=place, watch=watch), key=AUDITED
    )


def _itself(job: Job, output: Output, watch: Watch) -> Partner:
    if (place := store_of_job(job).url_of("")) != output.url:
        raise JobError(f"the output of this job is {place}", f"use the job file of {output.url}")
    name = "again"

    def render(rows: Sequence[AskedRow]) -> Output:
        row_ids, place = [row["row_id"] for row in rows], f"{_FOLDER}/{name}/{_CLIPS}"
        with _paid_together(output.store, output.store.below(place)) if job.engine else nullcontext():
            return Output(render_again(job, place, row_ids, watch))

    return Partner(title="itself, rendered again", name=name, render=render, key="row_id")


@contextmanager
def _paid_together(ours: Store, theirs: Store) -> Iterator[None]:
    """Let a limit on what an output may cost count these clips too, and the output count them afterwards."""
    of_output, of_audit = f"{PAID}/output.json", f"{PAID}/audit.json"
    theirs.write(of_output, json.dumps({"cost": paid_before(ours, but=of_audit)}).encode())
    try:
        yield
    finally:
        ours.write(of_audit, json.dumps({"cost": paid_before(theirs, but=of_output)}).encode())


def _name_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _compare(partner: Partner, output: Output, watch: Watch, *, share: float, levels: float) -> AuditReport:
    """Choose rows of an output, compare their clips, and store and return the report."""
    check_recorded([_COLUMN], output.store)
    folder, other = output.store.below(f"{_FOLDER}/{partner.name}"), partner.output
    with closing(RowPairs(is_by_question=other is not None)) as pairs:
        wait_for(watch, "reading records")
        pairs.add("ours", output, watch, key=partner.key and "row_id", more=_EXACTNESS)
        if other is not None:
            pairs.add("theirs", other, watch)
            pairs.match()
        lots = Lots(salt=kept_salt(folder), share=share)
        for ours, _ in pairs.both():
            lots.add(ours["row_id"], kind_in(ours))
        if not lots.num_rows:
            reasons = ", ".join(f"{reason}: {num:,}" for reason, num in pairs.left_out().items())
            fix = f"compare outputs of one table with a seed in each row ({reasons})"
            raise JobError(f"{output.url} has no row in common with {partner.title}", fix)
        if other is None:
            assert partner.render is not None
            chosen = [ours for ours, _ in pairs.both() if lots.has(ours["row_id"], kind_in(ours))]
            other = partner.render(chosen)
            pairs.add("theirs", other, watch, key=partner.key)
        tally, distances = DistanceTally(lots, levels), KeptDistances(folder)
        pace = ClipsPace("compared", total=lots.num_chosen, watch=watch)

        def compared(pair: RowPair) -> ComparedPair:
            return distances.of(pair) or compare_clips(output.store, other.store, pair)

        def take(pair: RowPair, outcome: ComparedPair) -> None:
            tally.add(pair[0]["row_id"], kind_in(pair[0]), outcome)
            distances.add(pair, outcome)
            pace.add(1)

        rows = (pair for pair in pairs.both() if lots.has(pair[0]["row_id"], kind_in(pair[0])))
        num_threads = min(_MOST_PARALLEL, os.cpu_count() or 1)
        try:
            each_answer(rows, compared, take, parallel=num_threads, end=lambda: None)
        finally:
            distances.flush()
        report = AuditReport(
            output=output.url,
            against=partner.title,
            levels=levels,
            share=share,
            total=tally.of(),
            kinds=tuple(tally.of(kind) for kind in lots.num_rows),
            problems=dict(tally.problems),
            left_out=pairs.left_out(),
            only_one_has=tuple(pairs.only_one_has),
            sides=pairs.made_by["ours"].against(pairs.made_by["theirs"]),
        )
        output.store.write(f"{REPORTS}/{partner.name}.json", report.to_json().encode())
        if partner.key != "row_id":  # repeating itself does not show how exact it is
            wait_for(watch, f"writing {_EXACTNESS} of records")
            _write_exactness(output, (ours for ours, _ in pairs.both()), report.exactness)
    return report


def _write_exactness(output: Output, rows: Iterable[AskedRow], exactness: str) -> None:
    with ColumnLock(output.store, pa.schema([_COLUMN.field])) as lock:
        for row in rows:
            if row.get(_EXACTNESS) != exactness:
                lock.put(row, {_EXACTNESS: exactness})
        lock.flush()
