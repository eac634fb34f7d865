"""Add rows to an output, which its job renders after the rows of its table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framefleet.api.commands import Callback, Overview, Watch, wait_for
from framefleet.api.errors import JobError, TableError, shown
from framefleet.api.jobs import Job, load_job, runners_of
from framefleet.api.outputs import Output
from framefleet.api.texts import did_you_mean
from framefleet.jobs.render.claim import check_claim
from framefleet.jobs.render.python_table import arrow_of, check_no_password, naming_table
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job, table_of_job
from framefleet.jobs.render.survey import Survey, check_valid, survey_rows
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.outputs.layout import ADDED, TABLES
from framefleet.pipeline.outputs.row_states import added_in
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.plugins.watch.status import driver_of

ANSWER_S = 30.0  # to wait for a driver's answer: three beats
_LOOK_S = 0.5
_DIGITS = 12  # of a file's digest, in its name


# Who renders added rows. running: the running job. next: the next run, as no running job accepts rows.
# unknown: a job is running, but has not answered.
RenderedBy = Literal["running", "next", "unknown"]
_OUTLOOKS: Mapping[RenderedBy, str] = {
    "running": "the running job will render {rows}",
    "next": "the next run with the output {output} will render {rows}",
    "unknown": "the running job has not answered; if it ends without these rows, run it again",
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Addition(Overview):
    """The added rows."""

    url: str  # of their file, in the output
    num_rows: int
    left_out: tuple[str, ...]  # a line for each row that cannot be rendered
    is_new: bool  # False if the output already had a file with these rows
    rendered_by: RenderedBy

    @property
    def outlook(self) -> str:
        """Who renders the rows, as text."""
        rows = "these rows" if self.is_new else "those of these rows that are left"
        return _OUTLOOKS[self.rendered_by].format(output=self.url.rpartition(f"/{TABLES}/")[0], rows=rows)

    def overview(self) -> Mapping[str, object]:
        return {
            "rows": f"{self.num_rows:,} {'added' if self.is_new else 'were added before'}",
            "left out": "; ".join(self.left_out[:1]) or None,
            "file": self.url,
            "outlook": self.outlook,
        }


def add(
    job: Job | str | Path | Mapping[str, Any],
    rows: object,
    *,
    sets: Sequence[str] = (),
    wait_s: float = ANSWER_S,
) -> Addition:
    """Add rows to the table of a job. A running job renders them after all others; else the next run does.

    job: a job file's path, or its content. rows: a table's path or URL, or rows as for `render`, with columns
    of the job's table. Paths in cells are relative to the same folder as those of that table. sets: e.g.
    "storage_options.key=...". wait_s: time to wait for a running driver's answer. Raises TableError for rows
    that cannot be rendered, unless the job leaves them out, and JobError for a job with a runner or a sweep.
    """
    return add_rows(job, rows, Callback(), sets, wait_s=wait_s)


def add_rows(
    job: Job | str | Path | Mapping[str, Any],
    rows: object,
    watch: Watch,
    sets: Sequence[str] = (),
    *,
    output: str | None = None,
    wait_s: float = ANSWER_S,
) -> Addition:
    """Add rows, as `add` does, and report to `watch`. output: replaces the job's."""
    job = load_job(job, sets, output=output)
    runners = runners_of(job)
    if job.sweep or job.table is None:
        way = "add values to it" if job.sweep else "change the job file"
        has = "a sweep" if job.sweep else "no table"
        raise JobError(f"rows cannot be added: the job has {has}", f"{way}, and run it again")
    with TemporaryDirectory(prefix="framefleet-") as folder:
        rows_file, file = Path(folder, "given.parquet"), Path(folder, "added.parquet")
        if not isinstance(rows, str | Path):
            pq.write_table(arrow_of(rows), rows_file)
            rows = rows_file
        with naming_table(str(rows_file)), closing(_resolved(job, watch, str(rows))) as resolved:
            check_claim(resolved)
            survey = _write(resolved, file, watch)
            for runner in runners:
                runner.check_added(job, watch, str(file))
        digest = sha256_of(file)[:_DIGITS]
        same = (path for path in added_in(resolved.store) if path.endswith(f"-{digest}.parquet"))
        earlier = next(same, None)  # e.g. by an earlier run of this command that was killed
        path = earlier or f"{TABLES}/{ADDED}{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{digest}.parquet"
        if earlier is None:
            resolved.store.upload(path, file)
        opened = Output(resolved.store)
        if not (opened.is_begun or opened.inner):
            watch.say(f"note: {opened.url} has no run yet")
        rendered_by: RenderedBy = "next"
        if driver_of(resolved.store).is_at_work:
            wait_for(watch, "waiting for the job's answer")
            # The driver looks every ten seconds. If it is ending, it does not take the file.
            deadline, rendered_by = time.monotonic() + wait_s, "unknown"
            while rendered_by == "unknown":
                driver = driver_of(resolved.store)
                if path in driver.tables and driver.takes_added:
                    rendered_by = "running"
                elif not (driver.is_at_work and driver.takes_added):
                    rendered_by = "next"
                elif (left_s := deadline - time.monotonic()) <= 0:
                    break
                else:
                    time.sleep(min(left_s, _LOOK_S))
        return Addition(
            url=resolved.store.url_of(path),
            num_rows=survey.num_rows - survey.num_invalid,
            left_out=tuple(survey.invalid_lines()),
            is_new=earlier is None,
            rendered_by=rendered_by,
        )


def _resolved(job: Job, watch: Watch, rows: str) -> ResolvedJob:
    """Open the job with these rows. Raises TableError for a column with another name in the job's table."""
    if job.columns:
        table = open_table(rows, job.storage_options if "://" in rows else {})
        names = table.schema.names
        for argument, column in job.columns.items():
            if argument in names and column not in names:
                problem = f"{table.location} has a column {argument!r}, but the job's table has {column!r}"
                raise TableError(problem, f"rename the column {argument!r} of {table.location} to {column!r}")
    return resolve_job(job, watch, rows, is_made=False)


def _write(resolved: ResolvedJob, file: Path, watch: Watch) -> Survey:
    """Write the rows with the columns of the job's table; return their survey."""
    recipe = resolved.recipes[resolved.job.recipe]
    called = [model.plan.spec for model in resolved.models.values()]
    table = table_of_job(resolved.job, called, recipe, added_in(resolved.store))
    schema = pa.schema([field.with_nullable(True) for field in table.schema])
    if others := [name for name in resolved.table.schema.names if name not in schema.names]:
        problem = f"{resolved.table.location} has a column {others[0]!r}, but the job's table does not"
        raise TableError(problem, did_you_mean(others[0], schema.names))
    with closing(RowIndex()) as index, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        survey = survey_rows(resolved, index, watch)
        check_valid(survey, resolved.table, on_invalid=resolved.job.on_invalid, verb="rendered")
        for first, batch in resolved.table.batches():
            left_out = index.left_out_in(first, batch.num_rows)
            positions = [at for at in range(first, first + batch.num_rows) if at not in left_out]
            if left_out:
                batch = batch.take(pa.array([at - first for at in positions], pa.int64()))
            writer.write_batch(_as_in(schema, batch, positions))
    return survey


def _as_in(schema: pa.Schema, batch: pa.RecordBatch, positions: Sequence[int]) -> pa.RecordBatch:
    """Return rows with the columns of the job's table; missing ones are null."""
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(field.name)
        check_no_password(field.name, pa.chunked_array([column]))
        try:
            columns.append(_cast(column, field.type))
        except pa.ArrowException as error:
            problem = f"{field.name} does not fit the job's table: {error}"
            for position, cell in zip(positions, column, strict=True):  # find the first that does not fit
                try:
                    _ = _cast(pa.array([cell.as_py()], column.type), field.type)
                except pa.ArrowException:
                    value = shown(cell.as_py())
                    problem = f"row {position}: {field.name} is {value}, but the job's table has {field.type}"
                    break
            raise TableError(problem, f"write it as {field.type}") from None
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a column as another type. Raises ArrowInvalid if a number would change."""
    cast = column.cast(kind)
    if pa.types.is_floating(column.type) and pa.types.is_floating(kind):  # Arrow would round
        is_other = pc.and_(pc.not_equal(cast.cast(column.type), column), pc.is_finite(column))
        if pc.any(is_other).as_py():
            raise pa.ArrowInvalid(f"some numbers do not fit {kind}")
    return cast
