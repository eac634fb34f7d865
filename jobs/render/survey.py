"""The first pass: every row of a table is checked and identified before a worker starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Self

import pyarrow as pa

from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.jobs.render.wildcards import Wildcards
from framefleet.jobs.show.watch import Checked, Watch
from framefleet.pipeline.errors import TableError, command, count_text
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.gone_clips import Gone, look_for_clips
from framefleet.pipeline.outputs.layout import INVALID
from framefleet.pipeline.outputs.parts.parts import PartWriter, read_parts
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS, fields_named, invalid_schema
from framefleet.pipeline.outputs.parts.seals import live_parts
from framefleet.pipeline.outputs.row_states import forgotten_rows
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import LaneKey, lane_of, work_in
from framefleet.pipeline.rows.inputs.fit import Fitted
from framefleet.pipeline.rows.sweeps.sweep import RowSource, Swept
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.record_columns import public_cells
from framefleet.pipeline.rows.tables.row_cells import repaired_row
from framefleet.pipeline.rows.tables.row_ids import first_positions_of, ids_of
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.pipeline.rows.tables.table_source import table_source

# Enough to see what is wrong with a table; more would hide it.
MAX_SHOWN = 20
MAX_EXAMPLES = 10_000  # a table may have a size for each row
# Assumed for a side that a row leaves to the pipeline; if the model's own size is known, rows have that.
_SIDE = 1024
_DONE = fields_named(FIRST_FIELDS, "row_id", "row_indices")


@dataclass(slots=True)
class Survey:
    """What the first pass found in the table."""

    num_rows: int = 0
    num_invalid: int = 0
    num_forgotten: int = 0  # rows that `framefleet forget` has taken out of the output
    invalid: list[InvalidRow] = field(default_factory=list)  # the first of the rows that cannot be rendered
    places: dict[int, str] = field(default_factory=dict)  # where these are in files
    shapes: Counter[str] = field(default_factory=Counter)  # how many valid rows have each
    examples: dict[str, Request] = field(default_factory=dict)  # the request of one row of each shape
    fitted: dict[str, Fitted] = field(default_factory=dict)  # what was done to pictures, by `inputs.fit`

    def add(self, rows: Sequence[IdentifiedRow | InvalidRow]) -> None:
        """Count some rows, those after the last."""
        valid = [row for row in rows if isinstance(row, IdentifiedRow)]
        invalid = [row for row in rows if isinstance(row, InvalidRow)]
        self.num_rows += len(rows)
        self.num_invalid += len(invalid)
        self.invalid += invalid[: MAX_SHOWN - len(self.invalid)]
        self.shapes.update([row.shape for row in valid])
        self._add_fitted(row.common.fitted for row in valid if row.common.fitted)
        for shape, row in {row.shape: row for row in valid}.items():
            if shape not in self.examples and len(self.examples) < MAX_EXAMPLES:
                self.examples[shape] = row.request()

    def __iadd__(self, later: Survey) -> Survey:
        """Count the rows that a later survey has seen, too."""
        self.num_rows += later.num_rows
        self.num_invalid += later.num_invalid
        self.num_forgotten += later.num_forgotten
        self.shapes += later.shapes
        self.examples = later.examples | self.examples
        self._add_fitted(later.fitted.values())
        return self

    def _add_fitted(self, parts: Iterable[Fitted]) -> None:
        for part in parts:
            self.fitted[part.fit] = self.fitted[part.fit] + part if part.fit in self.fitted else part

    def unusual_lines(self, specs: Mapping[str, PipelineSpec]) -> list[str]:
        """Return a line for each size that is far from the model's own. specs: of the models to look at."""
        examples = [(shape, row) for shape, row in self.examples.items() if row.model in specs]
        remarks = ((shape, specs[row.model].far_from_native(row.arguments)) for shape, row in examples)
        counted = ((self.shapes[shape], line) for shape, line in remarks if line)
        lines = [f"{count_text(num, 'row')}: {line}" for num, line in counted]
        hidden = len(lines) - MAX_SHOWN
        return lines[:MAX_SHOWN] + ([f"... and {count_text(hidden, 'more size')}"] if hidden > 0 else [])

    def largest(self, *, model: str = "", lane: LaneKey | None = None) -> Request | None:
        """Return the row with the most pixels of a model, or of one of its lanes."""
        rows = [row for row in self.examples.values() if lane in (None, lane_of(row)) and row.model == model]
        return max(rows, key=_num_pixels, default=None)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yield the height and width of one row of each shape, if it has both."""
        for row in self.examples.values():
            height, width = row.arguments.get("height"), row.arguments.get("width")
            if isinstance(height, int) and isinstance(width, int):
                yield height, width

    def fewest_steps(self) -> int:
        """Return the fewest denoising steps of any row; 0 if no row sets them."""
        rows = (row.arguments.get("num_inference_steps") for row in self.examples.values())
        return min((steps for steps in rows if isinstance(steps, int)), default=0)

    def mean_work(self, lane: LaneKey) -> float:
        """Return the mean work in a row of a lane, in the unit of `work_in`."""
        examples = [(shape, row) for shape, row in self.examples.items() if lane_of(row) == lane]
        rows = [(self.shapes[shape], work_in(row)) for shape, row in examples]
        return sum(num * work for num, work in rows) / max(1, sum(num for num, _ in rows))

    def find_places(self, table: RowSource) -> None:
        """Find where the rows of `invalid` stand."""
        self.places = table.places({row.index for row in self.invalid})

    def invalid_lines(self) -> list[str]:
        """Return a line for each value that is wrong, and one with the number of rows that are not shown."""
        messages = (row.messages(self.places.get(row.index)) for row in self.invalid)
        lines = [f"{problem}; {fix}" for of_row in messages for problem, fix in of_row]
        hidden = self.num_invalid - len(self.invalid)
        return lines + ([f"... and {count_text(hidden, 'more row')}"] if hidden else [])


def _num_pixels(row: Request) -> int:
    counts = (row.arguments.get(name) for name in (*FRAME_PARAMETERS, "segment_frame_length"))
    frames = max((count for count in counts if isinstance(count, int)), default=1)
    sides = (row.arguments.get(name) for name in ("height", "width"))
    return max(1, frames) * prod(side if isinstance(side, int) and side > 0 else _SIDE for side in sides)


def say_forgotten(num_rows: int, watch: Watch) -> None:
    """Say how many rows of the table `framefleet forget` has taken out of the output, if any."""
    if num_rows:
        rows = count_text(num_rows, "row")
        watch.say(
            f"note: forgotten (`framefleet forget`), so not rendered: {rows}; delete them from the table"
        )


def survey_rows(
    resolved: ResolvedJob,
    index: RowIndex,
    watch: Watch,
    *,
    look_at: Callable[[Sequence[IdentifiedRow]], None] | None = None,
    when_sound: Callable[[LaneKey], None] | None = None,
    limit: int | None = None,
    start: int = 0,
) -> Survey:
    """Read the table, put its valid rows into `index`, and return what was seen.

    look_at: called with the valid rows, some at a time. when_sound: called with the lane of a row as soon as
    some rows were read and none has to be corrected. limit: read only this many of the first rows. start: the
    first row to read.
    """
    survey = Survey()
    forgotten = forgotten_rows(resolved.store)
    readers = [reader for rows in resolved.rows.by_model.values() for reader in rows.plan.readers]
    prompts = {reader.column for reader in readers if reader.target == "prompt"}
    source, _ = table_source(resolved.job.table or "")
    num_remarks, remarked = 0, ""
    wildcards = Wildcards(prompts, resolved.table.swept if isinstance(resolved.table, Swept) else ())
    for first, batch in resolved.table.batches(start=start):
        if limit is not None and first >= limit:
            break
        if first < start:
            continue
        batch = batch if limit is None else batch.slice(0, limit - first)
        rows = list(resolved.rows.read(first, batch))
        if forgotten:
            gone = {row.index for row in rows if isinstance(row, IdentifiedRow) and row.row_id in forgotten}
            rows = [row for row in rows if row.index not in gone]
            index.leave_out(gone)
            survey.num_rows += len(gone)
            survey.num_forgotten += len(gone)
        survey.add(rows)
        wildcards.add(first, batch)
        valid = [row for row in rows if isinstance(row, IdentifiedRow)]
        if look_at:
            look_at(valid)
        if source:
            for row in valid:
                cells = batch.slice(row.index - first, 1).to_pylist()[0]
                if remark := source.remark(cells, row.request()):
                    num_remarks += 1
                    remarked = remarked or f"row {row.index}: {remark}"
        index.add([(row.index, row.row_id) for row in valid], [row.lane for row in valid])
        index.leave_out(row.index for row in rows if isinstance(row, InvalidRow))
        watch.show(Checked(num_rows=survey.num_rows))
        is_sound = not survey.num_invalid or resolved.job.on_invalid == "skip"
        if when_sound and is_sound and survey.examples:
            when_sound(lane_of(next(iter(survey.examples.values()))))
    resolved.finder.prefetch(())  # frees the files that it kept for the next rows
    survey.find_places(resolved.table)
    say_forgotten(survey.num_forgotten, watch)
    if remarked:
        watch.say(f"note: unusual: {count_text(num_remarks, 'row')}, e.g. {remarked}")
    if note := wildcards.note():
        watch.say(note)
    for step in resolved.steps.values():
        notes = [note for size in dict.fromkeys(survey.sizes()) if (note := step.note_of_size(*size))]
        if notes:
            watch.say(f"note: {notes[0]}" + f" (further sizes: {len(notes) - 1:,})" * (len(notes) > 1))
    latents = resolved.job.keep.latents
    num_steps = survey.fewest_steps() if latents else 0
    if num_steps and latents != "all" and (late := [step for step in latents if step > num_steps]):
        watch.say(
            f"note: keep.latents: {late[0]} is beyond the {count_text(num_steps, 'step')} of some rows, "
            f"which may fail; use at most {num_steps}, or -1 for the last"
        )
    return survey


def check_valid(
    survey: Survey, table: RowSource, *, on_invalid: str, verb: str, limit: int | None = None
) -> None:
    """Raise TableError for rows that cannot be used, unless the job leaves them out and others remain.

    verb: what cannot be done with them, e.g. "rendered". limit: look only at this many of the first rows,
    unless the job leaves rows out; a later run refuses the others.
    """
    if limit is not None and on_invalid != "skip" and all(row.index >= limit for row in survey.invalid):
        return
    check_valid_rows(
        survey.invalid_lines(),
        num_bad=survey.num_invalid,
        num_rows=survey.num_rows,
        table=table.location,
        on_invalid=on_invalid,
        verb=verb,
    )


def check_valid_rows(
    lines: Sequence[str], *, num_bad: int, num_rows: int, table: str, on_invalid: str, verb: str
) -> None:
    """Do what `check_valid` does, with plain values. lines: what is wrong with the first rows."""
    if not num_bad or (num_bad < num_rows and on_invalid == "skip"):
        return
    raise TableError(
        "\n".join([f"table {table}: {num_bad:,} of {count_text(num_rows, 'row')} cannot be {verb}", *lines]),
        "correct them" + (", or set `on_invalid: skip` to leave them out" if num_bad < num_rows else ""),
    )


def write_invalid(
    resolved: ResolvedJob, index: RowIndex, *, run: str, start: int = 0, heed: Callable[[], None]
) -> None:
    """Put the rows that the job skips under invalid/, in place of those of earlier runs.

    start: the first row to look at; what is there about earlier rows stays. heed: as in `mark_done`.
    """
    if resolved.job.on_invalid != "skip":
        if not start:  # rows that an earlier run skipped are valid now
            resolved.store.delete_many(resolved.store.list(INVALID))
        return

    def left_out() -> Iterator[LeftOut]:
        for first, batch in resolved.table.batches(start=start) if index.num_left_out else ():
            heed()
            if first < start:
                continue
            places = index.left_out_in(first, batch.num_rows)
            for row in resolved.rows.read(first, batch, only=places) if places else ():
                if isinstance(row, InvalidRow):
                    yield LeftOut.of(row, batch.slice(row.index - first, 1), resolved.rows.carried.places)

    write_left_out(resolved, left_out(), run=run, replaces=not start)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that cannot be rendered. cells: as the table has them, without secrets of URLs."""

    cells: pa.RecordBatch
    reasons: Mapping[str, object]

    @classmethod
    def of(cls, row: InvalidRow, cells: pa.RecordBatch, places: Collection[str]) -> Self:
        """places: columns that name files."""
        # A copy: a slice keeps its whole batch in memory.
        return cls(pa.concat_batches([public_cells(repaired_row(cells), places)]), reasons(row))


def write_left_out(resolved: ResolvedJob, rows: Iterable[LeftOut], *, run: str, replaces: bool) -> None:
    """Write rows to invalid/. replaces: delete those that are there."""
    store = resolved.store
    earlier = store.list(INVALID) if replaces else []
    writer = PartWriter(store, INVALID, invalid_schema(resolved.table.schema), run=run)
    for row in rows:
        writer.add(row.cells, row.reasons)
        if writer.due(0.0):
            writer.flush()
    writer.flush()
    store.delete_many(earlier)


def reasons(row: InvalidRow) -> dict[str, object]:
    problems = "; ".join(str(problem) for problem in row.problems)
    fixes = dict.fromkeys(problem.why.fix for problem in row.problems)
    if len(fixes) > 1:  # each says which problem it is for
        fixes = dict.fromkeys(f"{problem.column}: {problem.why.fix}" for problem in row.problems)
    return {"row_index": row.index, "reason": problems, "fix": "; ".join(fixes)}


def mark_done(
    resolved: ResolvedJob, index: RowIndex, watch: Watch, heed: Callable[[], None] = lambda: None
) -> Gone | None:
    """Note in the index which rows have a record, and report rows that have two.

    heed: called often; what it raises ends this. Returns which clips are gone, as far as a quick look shows.
    """
    num_records, parts = 0, [part.path for part in live_parts(resolved.store)]
    for records in read_parts(resolved.store, parts, _DONE):
        index.mark_done(ids_of(records["row_id"]), first_positions_of(records["row_indices"]))
        num_records += len(records)
        heed()
    if index.num_doubled:
        watch.say(
            f"note: more than one record: {count_text(index.num_doubled, 'row')}, as parts were copied "
            "or restored; the last one counts; "
            f"{command('repair', resolved.store.url_of(''))} removes the others"
        )
    return look_for_clips(resolved.store, parts, num_records=num_records)
