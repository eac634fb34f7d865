"""From drafts with their scores to a table of the rows that are kept, each with the seed of its draft."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.jobs.job.output import below, store_of_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError, TableError
from framefleet.pipeline.outputs.layout import CHOSEN, DRAFTS
from framefleet.pipeline.outputs.parts.records import record_schema
from framefleet.pipeline.outputs.query import check_where
from framefleet.pipeline.rows.tables.column_checks import argument_meant
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.pipeline.scores.choice import Draft, Keep, kept_drafts
from framefleet.pipeline.scores.score import score_fields

_ROW_ID, _PATH, _SCORE = "draft_row_id", "draft_path", "draft_{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """place: of the table of what is kept; None where it has no row. num_drafts: to choose from."""

    place: str | None
    num_kept: int
    num_drafts: int


def check_choice(drafts: ResolvedJob, keep: Keep) -> None:
    """Raise UserError for groups by what no row has, and for a table that has our columns already."""
    carried = drafts.rows.carried.schema(drafts.table.schema)
    columns = record_schema(carried, drafts.rows.argument_fields, score_fields(drafts.scores))
    plans = [model.plan for model in drafts.models.values()]
    arguments = {name for plan in plans for name in (*plan.base, *(reader.target for reader in plan.readers))}
    known = {*columns.names, *arguments}
    for name in keep.per:
        if name not in known:
            raise JobError(f"draft.keep.per: rows have no {name!r}", argument_meant(name, known))
    if keep.where is not None:
        check_where(columns, keep.where)
    ours = {_ROW_ID, _PATH, *(_SCORE.format(score.name) for score in drafts.scores)}
    for name in ours & {*drafts.table.schema.names}:
        raise TableError(
            f"column {name!r} has the name of one that says which draft a row comes from",
            "rename it in the table, or drop it",
        )


def choose(job: Job, drafts: Job, keep: Keep) -> Choice:
    """Write the table of what is kept of a job's drafts.

    It is named by its content, so that a driver at work never finds another in its place.
    """
    silent = Callback()
    with closing(resolve_job(drafts, silent)) as drafted, closing(RowIndex()) as index:
        survey_rows(drafted, index, silent)
        scores = [score.name for score in drafted.scores]
        kept = kept_drafts(
            drafted.store, keep, scores, is_wanted=lambda row_id: index.is_pending(row_id) is not None
        )
        place = _written(job, drafted, kept, scores) if kept else None
        return Choice(place=place, num_kept=len(kept), num_drafts=index.counts().distinct)


def rows_of_drafts(job: Job, place: str, drafts: Collection[str]) -> Iterator[str]:
    """Yield the row_ids that rows of a table of what is kept have in full, those of these drafts."""
    with closing(resolve_job(job, Callback(), place)) as full:
        for first, batch in full.table.batches():
            of_drafts = batch.column(_ROW_ID)
            for row in full.rows.read(first, batch):
                if isinstance(row, IdentifiedRow) and of_drafts[row.index - first].as_py() in drafts:
                    yield row.row_id


def _written(job: Job, drafted: ResolvedJob, kept: Mapping[str, Draft], scores: list[str]) -> str:
    """Write the rows that are kept, each with its draft's seed, and return where."""
    seed = job.columns.get("seed", "seed")
    schema = _chosen_schema(drafted, seed, scores)
    with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
        file = Path(folder, "chosen.parquet")
        with pq.ParquetWriter(file, schema) as writer:
            for first, batch in drafted.table.batches():
                rows = [
                    row
                    for row in drafted.rows.read(first, batch)
                    if isinstance(row, IdentifiedRow) and row.row_id in kept
                ]
                if rows:
                    writer.write_batch(_chosen(batch, first, rows, kept, schema, seed))
        with open(file, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        store, path = store_of_job(job), f"{CHOSEN}/{digest[:16]}.parquet"
        if not store.exists(path):
            store.upload(path, file)
    return below(job, path)


def _chosen_schema(drafted: ResolvedJob, seed: str, scores: list[str]) -> pa.Schema:
    kinds = {score.name: score.kind for score in drafted.scores}
    own = [field.remove_metadata() for field in drafted.table.schema if field.name != seed]
    said = [pa.field(_SCORE.format(name), kinds[name]) for name in scores]
    texts = [pa.field(name, pa.string()) for name in (_ROW_ID, _PATH)]
    return pa.schema([*own, pa.field(seed, pa.int64()), *texts, *said])


def _chosen(
    batch: pa.RecordBatch,
    first: int,
    rows: list[IdentifiedRow],
    kept: Mapping[str, Draft],
    schema: pa.Schema,
    seed: str,
) -> pa.RecordBatch:
    """Return these rows of the batch as they go into the table of what is chosen."""
    taken = batch.take(pa.array([row.index - first for row in rows]))
    drafts = [kept[row.row_id] for row in rows]
    ours = {
        seed: [row.seed for row in rows],
        _ROW_ID: [draft.row_id for draft in drafts],
        _PATH: [draft.path and f"{DRAFTS}/{draft.path}" for draft in drafts],
    }
    ours |= {_SCORE.format(name): [draft.scores[name] for draft in drafts] for name in drafts[0].scores}
    cells = [
        pa.array(ours[field.name], field.type) if field.name in ours else taken.column(field.name)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(cells, schema=schema)
