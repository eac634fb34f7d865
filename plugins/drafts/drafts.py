"""Make the job for a job's drafts, and the table of the rows to render in full: the best of each group."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import pyarrow as pa

from framefleet.api.commands import Callback, Watch
from framefleet.api.errors import EndpointError, JobError, TableError
from framefleet.api.jobs import Job, Summary, below, store_of_job
from framefleet.api.outputs import Store, check_where, fix_of_missing
from framefleet.api.texts import canonical_json
from framefleet.cluster.driver.earlier_runs import spent_before
from framefleet.cluster.driver.stop import Spent
from framefleet.jobs.job.columns import step_columns
from framefleet.jobs.job.steps import for_choice
from framefleet.jobs.render.claim import check_claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import check_valid, survey_rows
from framefleet.pipeline.outputs.columns import REFUSED, is_for_good, late_columns
from framefleet.pipeline.outputs.file_step import added_columns
from framefleet.pipeline.outputs.layout import CHOSEN
from framefleet.pipeline.outputs.output import FRAMES_OF
from framefleet.pipeline.outputs.parts.records import plain_name, with_arguments
from framefleet.pipeline.outputs.query import records_where
from framefleet.pipeline.rows.tables.column_checks import argument_meant
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.plugins.columns.fill import Damaged, clip_frames
from framefleet.plugins.drafts.plugin import DRAFT_ROW_ID, DRAFTS, SECTION
from framefleet.plugins.drafts.section import DraftSection, KeepSection
from framefleet.plugins.forecast.job_plan import JobPlan, PlanOptions
from framefleet.plugins.made_tables import store_made_table

log = logging.getLogger(__name__)

_READ = ("row_id", "path", "arguments")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A draft that is rendered in full."""

    row_id: str
    path: str | None  # of its clip
    values: dict[str, Any]  # values of file steps, by column


def kept_drafts(
    store: Store, keep: KeepSection, measured: list[str], is_wanted: Callable[[str], bool]
) -> dict[str, Draft]:
    """Choose drafts to keep from their output; return them by row_id.

    measured: columns to return. is_wanted: whether a draft's row is in the current table. Raises JobError for
    an unknown column or an invalid condition.
    """
    heaps: dict[str, list[tuple[float, int, Draft]]] = {}  # best drafts of each group, the worst on top
    for table in records_where(store, [*_READ, *measured, *keep.per], keep.where):
        for row in (row for row in table.to_pylist() if is_wanted(row["row_id"])):
            values, columns = {name: row.get(name) for name in measured}, with_arguments(row)
            draft = Draft(row_id=row["row_id"], path=row["path"], values=values)
            group = canonical_json([str(columns.get(name)) for name in keep.per])
            score = values.get(keep.score) if keep.score else None
            rank = float("-inf")  # drafts without the score come last
            if isinstance(score, int | float) and score == score:
                rank = float(score) if keep.by == keep.score else -float(score)
            # For equal scores, keep the smaller row_id, so that every run keeps the same drafts.
            entry, heap = (rank, -int(draft.row_id, 16), draft), heaps.setdefault(group, [])
            if keep.best is None or len(heap) < keep.best:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
    return {draft.row_id: draft for heap in heaps.values() for _, _, draft in heap}


_MAX_ASKED = 16  # drafts to check among those that lack an answer
_PATH, _SCORE = "draft_path", "draft_{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The drafts to render in full."""

    place: str | None  # of the table with these rows; None if there are none
    num_kept: int
    num_drafts: int  # to choose from


def check_choice(drafts: ResolvedJob, keep: KeepSection) -> None:
    """Raise UserError for groups by an unknown column, and for a table that already has our columns."""
    columns = drafts.record_columns()
    names = dict.fromkeys([*sorted(drafts.argument_names), *columns.names])
    for name in keep.per:
        if name not in names:
            raise JobError(f"draft.keep.per: rows have no {name!r}", argument_meant(name, names))
    if keep.where is not None:
        check_where(columns, keep.where, place="draft.keep.where", source="it to `scores:`")
    ours = {DRAFT_ROW_ID, _PATH, *map(_SCORE.format, _measured(drafts).names)}
    for name in ours & {*drafts.table.schema.names}:
        raise TableError(
            f"column {name!r} is reserved for the draft from which a row comes",
            "rename it in the table, or drop it",
        )


def _measured(drafts: ResolvedJob) -> pa.Schema:
    """Return the numeric columns of file steps, by which drafts can be ranked."""
    kinds = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    return pa.schema(
        [
            field
            for field in added_columns(drafts.steps, drafts.columns)
            if any(is_of(field.type) for is_of in kinds)
        ]
    )


def choose(job: Job, keep: KeepSection, table: str | None = None) -> Choice:
    """Choose among a job's drafts, and write the table of the rows to keep. table: replaces the job's."""
    silent = Callback()
    with closing(resolve_job(draft_job(job), silent, table)) as drafted, closing(RowIndex()) as index:
        survey_rows(drafted, index, silent)
        measured = _measured(drafted).names

        def is_wanted(row_id: str) -> bool:
            return index.is_pending(row_id) is not None

        _check_answered(drafted, keep, is_wanted)
        chosen = kept_drafts(drafted.store, keep, measured, is_wanted)
        place = _store_kept(job, drafted, chosen) if chosen else None
        return Choice(place=place, num_kept=len(chosen), num_drafts=index.counts().distinct)


def _check_answered(drafted: ResolvedJob, keep: KeepSection, is_wanted: Callable[[str], bool]) -> None:
    """Raise EndpointError if columns for the choice are still to be filled.

    Drafts that will never have a value, since they were refused or are damaged, do not delay the others.
    """
    where = plain_name(keep.where or "")
    late = [column.name for column in late_columns(drafted.columns)]
    for name in (name for name in late if name == keep.score or plain_name(name) in where):
        refused = REFUSED.format(name)
        tables = records_where(drafted.store, ["row_id", name, refused], None)
        rows = (row for table in tables for row in table.to_pylist() if row.get(name) is None)
        lacking = {row["row_id"]: is_for_good(row.get(refused)) for row in rows if is_wanted(row["row_id"])}
        if not lacking:
            continue
        text = f"drafts without {name}, which decides the choice: {len(lacking):,}"
        waiting = [row_id for row_id, is_refused in lacking.items() if not is_refused]
        some = Random(len(waiting)).sample(waiting, min(len(waiting), _MAX_ASKED))
        if some and not _are_damaged(drafted.store, some):
            raise EndpointError(text, "run the same command again")
        log.warning("%s, e.g. %s; they come last", text, next(iter(lacking)))


def _are_damaged(store: Store, row_ids: Sequence[str]) -> bool:
    """Whether the clips of all these drafts are damaged, so that no question about them can be answered."""
    chosen = f"row_id in ({', '.join(map(repr, row_ids))})"
    for table in records_where(store, [*FRAMES_OF, "frames_sha256"], chosen):
        for record in table.to_pylist():
            with suppress(Damaged):
                clip_frames(store, record)
                return False
    return True


def rows_of_drafts(job: Job, place: str, drafts: Collection[str]) -> Iterator[str]:
    """Yield the row_ids of the full rows of these drafts, from the table of kept rows."""
    with closing(resolve_job(job, Callback(), place)) as full:
        for first, batch in full.table.batches():
            of_drafts = batch.column(DRAFT_ROW_ID)
            for row in full.rows.read(first, batch):
                if isinstance(row, IdentifiedRow) and of_drafts[row.index - first].as_py() in drafts:
                    yield row.row_id


def _store_kept(job: Job, drafted: ResolvedJob, kept: Mapping[str, Draft]) -> str | None:
    """Write the kept rows, each with its draft's seed, as a table, and return its place."""
    seed = job.columns.get("seed", "seed")
    own = [field.remove_metadata() for field in drafted.table.schema if field.name != seed]
    scores = _measured(drafted)
    measured = [pa.field(_SCORE.format(field.name), field.type) for field in scores]
    texts = [pa.field(name, pa.string()) for name in (DRAFT_ROW_ID, _PATH)]
    schema = pa.schema([*own, pa.field(seed, pa.int64()), *texts, *measured])

    def parts() -> Iterator[tuple[pa.RecordBatch, dict[str, list[Any]]]]:
        for first, batch in drafted.table.batches():
            rows = [
                row
                for row in drafted.rows.read(first, batch)
                if isinstance(row, IdentifiedRow) and row.row_id in kept
            ]
            if not rows:
                continue
            drafts = [kept[row.row_id] for row in rows]
            cells = {_SCORE.format(name): [draft.values[name] for draft in drafts] for name in scores.names}
            cells |= {
                seed: [row.seed for row in rows],
                DRAFT_ROW_ID: [draft.row_id for draft in drafts],
                _PATH: [draft.path and f"{DRAFTS}/{draft.path}" for draft in drafts],
            }
            yield batch.take(pa.array([row.index - first for row in rows])), cells

    return store_made_table(job, CHOSEN, schema, parts())


def draft_job(job: Job) -> Job:
    """Return the job that renders the drafts: the same rows with other arguments and with scores."""
    changed = {
        "output": below(job, DRAFTS),
        "overrides": {**job.overrides, **section_of(job).row_arguments},
        **for_choice(job),
        SECTION: None,
    }
    return job.model_copy(update=changed)


def section_of(job: Job) -> DraftSection:
    return getattr(job, SECTION)


def keep_of(job: Job) -> KeepSection:
    """Return the settings for keeping drafts. Raises JobError if the score for ranking is not measured."""
    keep, measured = section_of(job).keep, step_columns(draft_job(job))
    if keep.score is not None and keep.score not in measured:
        raise JobError(
            f"draft.keep.by is {keep.by!r}, but drafts have no such score",
            fix_of_missing(keep.score, measured, source="it to `scores:`"),
        )
    return keep


def most_kept(job: Job, keep: KeepSection, table: str | None = None) -> int:
    """Return the maximum number of drafts to keep, from the distinct rows and their groups.

    A column that only records have makes one group per row. Reads the whole table.
    """
    groups: Counter[int] = Counter()
    seen: set[int] = set()  # hashes of rows, a hundred bytes each
    with closing(resolve_job(draft_job(job), Callback(), table)) as drafts:
        check_choice(drafts, keep)
        unset = dict.fromkeys(drafts.rows.argument_fields.names)
        for first, batch in drafts.table.batches():
            for row in drafts.rows.read(first, batch):
                if isinstance(row, IdentifiedRow) and (mark := hash(row.row_id)) not in seen:
                    seen.add(mark)
                    carried = drafts.rows.carried.of(batch.slice(row.index - first, 1))
                    cells = unset | dict(zip(carried.schema.names, carried.columns, strict=True))
                    # The key of the row's group, as far as it is known.
                    values = {**cells, **row.request().arguments, "model_name": row.model}
                    groups[hash(tuple(str(values.get(name, row.row_id)) for name in keep.per))] += 1
    return sum(groups.values()) if keep.best is None else sum(min(keep.best, n) for n in groups.values())


def spent_on(job: Job, elsewhere: Spent | None, ended: Summary | None = None) -> Spent:
    """Return what was spent on one of the two outputs, for the budget of the other's run, and elsewhere.

    ended: summary of this run of it.
    """
    if job.budget.per == "run":
        own = ended.spent if ended else Spent()
    else:
        own = spent_before(store_of_job(job)) if job.budget.is_limited else Spent()
    return own + (elsewhere or Spent())


def check_in_full(job: Job, keep: KeepSection, watch: Watch, table: str | None = None) -> None:
    """Raise UserError for rows that would be refused in full, before drafts are rendered."""
    try:
        with closing(resolve_job(draft_job(job), Callback(), table)) as resolved:
            check_choice(resolved, keep)
    except JobError as error:  # about a key that is not in the job
        raise JobError(error.problem.replace("overrides.", "draft."), error.fix) from None
    with closing(resolve_job(job, watch, table)) as full, closing(RowIndex()) as index:
        check_claim(full)
        survey = survey_rows(full, index, watch)
        check_valid(survey, full.table, on_invalid=job.on_invalid, verb="rendered in full")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DraftedPlan(JobPlan):
    drafts: JobPlan  # for every row
    most_kept: int  # maximum number of full rows
    keep: str  # how they are chosen, as text

    @property
    def to_render(self) -> str:
        return f"at most {self.most_kept:,}"

    def parts(self, wanted: PlanOptions) -> Iterator[str | JobPlan]:
        yield "drafts of every row:"
        yield from self.drafts.parts(wanted)
        yield f"in full, at most {self.most_kept:,} of these rows: {self.keep}"
        yield self
        if wanted.probe:
            yield "only drafts are predicted: which rows are rendered in full is not known yet"
