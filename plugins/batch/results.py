"""Write a batch's files of results and errors from the records and failures of its output."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.api.commands import Callback, Overview
from framefleet.api.errors import JobError, StoreError, TableError, count_text
from framefleet.api.jobs import Job, store_of_job
from framefleet.api.outputs import Output, Store, rows_of
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.survey import reasons
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.plugins.batch.lines import Line, error_line, result_line
from framefleet.plugins.batch.words import VIDEOS_URL, Refusal

CUSTOM_ID = "custom_id"  # column of the table
_COLUMNS = (
    *("row_id", "uri", "path", "bytes", "media_sha256", "width", "height", "num_frames", "fps", "duration_s"),
    *("seed", "model", "started_at", "finished_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch file, and the job that renders its lines."""

    job: Job
    lines: Sequence[Line]
    results: Path  # the files that are written
    errors: Path


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BatchSummary(Overview):
    """How many lines of a batch file have results."""

    results: str  # file of results
    errors: str | None  # file of errors; None: every line has a result or is left
    output: str  # with clips and records
    done: int = 0  # lines with a result
    refused: int = 0  # lines that cannot be rendered
    failed: int = 0  # lines with a failed row
    left: int = 0  # lines for the next run

    @property
    def exit_code(self) -> int:
        """0 if every line has a result; otherwise 1."""
        return 1 if self.refused or self.failed or self.left else 0

    def overview(self) -> Mapping[str, object]:
        return {
            "results": f"{self.results}, {count_text(self.done, 'line')}",
            "errors": self.errors and f"{self.errors}, {count_text(self.refused + self.failed, 'line')}",
            "left": self.left or None,
            "clips": self.output,
        }


_OF_ROWS = ("RowError", "InputError")  # the row is refused, by a server too, and would be again
# A row's record, or why it has none; None if it is not rendered yet.
_Outcome = Mapping[str, Any] | Refusal | None


def write_results(opened: Batch) -> BatchSummary:
    """Write what became of each line into the files of results and errors, in their order."""
    output, results, errors = Output(store_of_job(opened.job)), opened.results, opened.errors
    outcomes, counts = _outcomes(output), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
        done, not_done = Path(folder, "results"), Path(folder, "errors")
        with (
            done.open("w", encoding="utf-8") as to_results,
            not_done.open("w", encoding="utf-8") as to_errors,
        ):
            for line in opened.lines:
                own = [line.refusal] if line.refusal else outcomes.get(line.custom_id, [None])
                records = [one for one in own if isinstance(one, Mapping)]
                if refusals := [one for one in own if isinstance(one, Refusal)]:
                    refusal = min(refusals, key=lambda one: one.status_code)
                    counts["failed" if refusal.status_code >= 500 else "refused"] += 1
                    to_errors.write(error_line(line, refusal))
                elif len(records) < len(own):
                    counts["left"] += 1
                else:
                    counts["done"] += 1
                    to_results.write(result_line(line, _with_contents(output, line, records)))
        _put(done, results)
        has_errors = not_done.stat().st_size > 0
        if has_errors:
            _put(not_done, errors)
        else:
            errors.unlink(missing_ok=True)  # from an earlier run
    place = str(errors) if has_errors else None
    return BatchSummary(results=str(results), errors=place, output=output.url, **counts)


def write_refusals(lines: Sequence[Line], errors: Path, refusals: Mapping[str, Refusal]) -> None:
    """Write the file of errors if every line is refused. refusals: by custom_id."""
    refused = [(line, line.refusal or refusals.get(line.custom_id)) for line in lines]
    answers = [error_line(line, refusal) for line, refusal in refused if refusal]
    if not answers or len(answers) < len(lines):
        return
    with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
        (file := Path(folder, "errors")).write_text("".join(answers), "utf-8")
        _put(file, errors)


@contextmanager
def listing_refusals(opened: Batch) -> Iterator[None]:
    """Write the file of errors if the block raises TableError because no row can be rendered."""
    try:
        yield
    except TableError:
        refusals = dict[str, Refusal]()
        with closing(resolve_job(opened.job, Callback())) as resolved:
            for first, batch in resolved.table.batches():
                for row in resolved.rows.read(first, batch):
                    if isinstance(row, InvalidRow):
                        custom_id, cells = batch.column(CUSTOM_ID)[row.index - first].as_py(), reasons(row)
                        refusals[custom_id] = _invalid(str(cells["reason"]), str(cells["fix"]))
        write_refusals(opened.lines, opened.errors, refusals)
        raise


def lines_left(job: Job, forgotten: Collection[str]) -> Collection[str]:
    """Return the custom_ids in a batch's table, except those of forgotten rows, which it may still have."""
    left = set[str]()
    with closing(resolve_job(job, Callback())) as resolved:
        for first, batch in resolved.table.batches():
            for row in resolved.rows.read(first, batch):
                if isinstance(row, InvalidRow) or row.row_id not in forgotten:
                    left.add(batch.column(CUSTOM_ID)[row.index - first].as_py())
    return left


def _invalid(reason: str, fix: str) -> Refusal:
    # The reason starts with the column, which has the same name in the API.
    name, message = reason.partition(" ")[0], f"{reason}; {fix}" if fix else reason
    return Refusal(code="invalid_value", message=message, name=name)


def _put(file: Path, place: Path) -> None:
    try:
        Store(str(place.absolute().parent)).upload(place.name, file)
    except StoreError as error:
        raise JobError(f"{place} cannot be written: {error.problem}", "choose another file") from None


def refusal_of(error_type: str, message: str) -> Refusal:
    """Return how the API would say why a row failed."""
    if error_type in _OF_ROWS:
        return Refusal(code="invalid_value", message=message)
    return Refusal(code="server_error", message=f"{error_type}: {message}", status_code=500)


def _outcomes(output: Output) -> Mapping[str, list[_Outcome]]:
    """Return the outcomes of each line's rows, by custom_id. Keeps only a few values per row in memory.

    A line is missing until a run has read its row.
    """
    by_row: dict[str, _Outcome] = {
        row.row_id: refusal_of(row.error_type, row.message) for row in output.failures()
    }
    for table in output.records(_COLUMNS):
        by_row |= {record["row_id"]: record for record in rows_of(table, output.url)}
    by_line = defaultdict[str, list[_Outcome]](list)
    for table in output.invalid_rows():
        columns = (table[name].to_pylist() for name in (CUSTOM_ID, "reason", "fix"))
        for custom_id, reason, fix in zip(*columns, strict=True):
            by_line[custom_id].append(_invalid(reason, fix))
    for table in output.rows():
        for custom_id, row_id in zip(table[CUSTOM_ID].to_pylist(), table["row_id"].to_pylist(), strict=True):
            by_line[custom_id].append(by_row.get(row_id))
    return by_line


def _with_contents(output: Output, line: Line, records: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return records, with the bytes of their pictures if the line asks for them."""
    assert line.body is not None, "it was rendered"
    if line.url == VIDEOS_URL or line.body.get("response_format") != "b64_json":
        return records
    contents = [next(output.files(record))[1] for record in records]  # the clip's comes first
    if damaged := next((one for one in contents if isinstance(one, str)), None):
        problem = f"line {line.number:,}: its picture is damaged: {damaged}"
        raise JobError(problem, "run `framefleet repair` on the output")
    return [{**record, "content": content} for record, content in zip(records, contents, strict=True)]
