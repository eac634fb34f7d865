"""From record batches to rows that are ready to render, and rows that are refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import Problem, Refused
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.lora import ARGUMENT as LORA
from framefleet.pipeline.model.specs.schedulers import SchedulerChoice
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS, PLACES, ArgumentKind
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.request import Request, clip_fps, each_input
from framefleet.pipeline.rows.identity import derive_seed
from framefleet.pipeline.rows.lane_key import lane_named, lane_of
from framefleet.pipeline.rows.tables.limits import late_problems, listed_steps
from framefleet.pipeline.rows.tables.record_columns import Carried
from framefleet.pipeline.rows.tables.row_cells import readable
from framefleet.pipeline.rows.tables.row_inputs import Finder, check_video_length, files_in, public_cell
from framefleet.pipeline.text import shape_text

SHAPING = (*FRAME_PARAMETERS, "height", "width", "max_sequence_length")
# Texts that each row has for itself. No check looks at them together with other cells, but for whether they
# are given: `table_rows.py` rests on it.
OWN_TEXTS = ("prompt", "negative_prompt")
# From arguments and the names of those that the row itself gives, to what is rendered, and what is wrong.
Rules = Callable[[dict[str, Any], Set[str]], tuple[dict[str, Any], list[tuple[str, Refused]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRow:
    """A row that can be rendered.

    index: its position in the table, from 0.
    request: arguments resolved (signature, then job, then row), scheduler by its canonical name, a seed.
        `fps` is what the row itself gave, or None.
    shape: equal for rows that can likely share forwards.
    """

    index: int
    request: Request
    shape: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidRow:
    """A row that cannot be rendered, with everything that is wrong with it."""

    index: int
    problems: tuple[Problem, ...]

    def messages(self, place: str | None = None) -> list[tuple[str, str]]:
        """Return (problem, fix) pairs, as errors have them. place: of the row in its file."""
        row = f"row {self.index}" + (f" ({place})" if place else "")
        return [(f"{row}: {problem}", problem.why.fix) for problem in self.problems]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One column with a meaning. check: of a cell that is not null; a value, or Refused."""

    column: str
    target: str
    kind: ArgumentKind
    is_argument: bool
    check: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """How the rows of one table become requests; made by `row_plan.plan_rows`."""

    readers: tuple[Reader, ...]
    base: Mapping[str, Any]  # the arguments of a row whose cells are all null
    required: tuple[str, ...]
    seed: int | None
    scheduler: SchedulerChoice
    loras: Mapping[str, Any]  # the LoRAs of such a row
    recipe: Recipe
    fps: float | None  # the job's own rate, if it has one
    finder: Finder
    spec: PipelineSpec
    # What a pipeline allows in a row beyond each argument's own rule.
    rules: Rules | None
    carried: Carried  # columns that go into the record as they are
    argument_fields: pa.Schema  # columns that show the arguments
    lookalikes: tuple[tuple[str, str], ...]  # (carried column, argument that it may have meant)
    model: str = ""  # the name of the rows' model, if a job has several

    def rows(self, first_index: int, batch: pa.RecordBatch) -> Iterator[CheckedRow | InvalidRow]:
        """Yield every row of the batch in order; `first_index` is the position of its first."""
        refused, columns = self.columns(batch)
        rows = cells_of(columns, batch.num_rows)
        for offset in range(batch.num_rows):
            index = first_index + offset
            if offset in refused:
                yield InvalidRow(index=index, problems=tuple(refused[offset]))
            else:
                yield self.row(index, next(rows))

    def columns(self, batch: pa.RecordBatch) -> tuple[dict[int, list[Problem]], list[list[Any]]]:
        """Return the rows that cannot be read, by offset, and of all others the cells of each reader."""
        readable_rows = readable(batch, [reader.column for reader in self.readers])
        columns = [_values(column) for column in readable_rows.cells.columns]
        placed = [at for at, reader in enumerate(self.readers) if reader.kind in PLACES]
        cells = ((self.readers[at].kind, cell) for at in placed for cell in columns[at])
        self.finder.prefetch(file for kind, cell in cells for file in files_in(cell, kind))
        return readable_rows.refused, columns

    def row(self, index: int, cells: Sequence[Any]) -> CheckedRow | InvalidRow:
        """Return the row at `index` of the table. cells: one for each reader."""
        arguments = dict(self.base)
        special: dict[str, Any] = {}
        problems: list[Problem] = []
        for reader, cell in zip(self.readers, cells, strict=True):
            if cell is None:
                continue
            value = reader.check(cell)
            if type(value) is Refused:
                shown = public_cell(cell) if reader.kind in PLACES else cell
                problems.append(Problem(reader.column, shown, value))
            elif reader.is_argument:
                arguments[reader.target] = value
            else:
                special[reader.target] = value
        own = {reader.target for reader, cell in zip(self.readers, cells, strict=True) if cell is not None}
        if self.rules and not problems:
            taken, refused = self.rules(arguments, own)
            problems += self._problems(refused, arguments | taken) if refused else []
            arguments = taken
        steps = listed_steps(arguments) if "num_inference_steps" in self.spec.parameters else None
        if steps is not None and "num_inference_steps" not in own:
            arguments["num_inference_steps"] = steps
        choice: SchedulerChoice = special.get("scheduler", self.scheduler)
        problems += self._across(arguments, choice, {problem.column for problem in problems})
        recipe: Recipe = special.get("recipe", self.recipe)
        fps: float | None = special.get("fps")
        if fps is None and "duration_s" in arguments:  # the rate that makes seconds frames
            fps = clip_fps(self.fps, self.spec.fps_of(arguments))
        if not problems:
            late = late_problems(self.spec, recipe, arguments, fps=fps, scheduler=choice)
            video = arguments.get("video")
            if video and not self.spec.family.row_rules:
                too_short = check_video_length(video, arguments.get("num_frames"), self.spec)
                late += [("video", too_short)] if too_short else []
            problems += self._problems(late, arguments)
        if problems:
            return InvalidRow(index=index, problems=tuple(problems))
        if loras := special.get(LORA, self.loras):
            arguments[LORA] = loras
        seed = special.get("seed", self.seed)
        if seed is None:
            seed = derive_seed(arguments=arguments, scheduler=choice.canonical, recipe=recipe.name)
        names = {"scheduler": choice.canonical, "recipe": recipe.name, "model": self.model}
        request = Request(arguments=arguments, seed=seed, fps=fps, **names)
        # rows of other lanes than the job's own never share forwards
        is_elsewhere = lane_of(request) != lane_named(self.model, self.recipe.name)
        others = filter(None, [self.model, recipe.name if is_elsewhere else ""])
        return CheckedRow(index=index, request=request, shape=": ".join([*others, shape_of(arguments)]))

    def _across(
        self, arguments: Mapping[str, Any], choice: SchedulerChoice, refused: set[str]
    ) -> list[Problem]:
        """Return what is wrong with cells that are fine one by one. refused: columns already reported."""
        problems = []
        for name in self.required:
            if name not in arguments and self._column(name) not in refused:
                reason = f"every row needs {'an' if name[0] in 'aeiou' else 'a'} {name}"
                why = Refused(reason=reason, fix=f"fill it in, or set `defaults: {{{name}: ...}}`")
                problems.append(Problem(self._column(name), None, why))
        steps = arguments.get("num_inference_steps", choice.min_steps)
        if not choice.min_steps <= steps <= choice.max_steps:
            bounds = f"{choice.min_steps} to {choice.max_steps}"
            reason = f"{choice.class_name} of this model takes {bounds} steps"
            why = Refused(reason=reason, fix=f"use {bounds}")
            problems.append(Problem(self._column("num_inference_steps"), steps, why))
        return problems

    def _problems(
        self, found: Iterable[tuple[str, Refused]], arguments: Mapping[str, Any]
    ) -> Iterator[Problem]:
        for name, refused in found:
            value: Any = arguments.get(name)
            shown = each_input(value, lambda named: public_url(named["uri"]))
            yield Problem(self._column(name), shown, refused)

    def _column(self, target: str) -> str:
        return next((reader.column for reader in self.readers if reader.target == target), target)


def cells_of(columns: Sequence[Sequence[Any]], num_rows: int) -> Iterator[tuple[Any, ...]]:
    return zip(*columns, strict=True) if columns else iter([()] * num_rows)


def _values(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    kind = getattr(column.type, "value_type", column.type)  # of a list
    return [_plain(value) for value in values] if pa.types.is_decimal(kind) else values


def _plain(value: Any) -> Any:
    """Return decimals, as DuckDB writes 5.0, as numbers that Python computes with; whole ones stay exact."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if not isinstance(value, Decimal):
        return value
    return int(value) if value == value.to_integral_value() else float(value)


def shape_of(arguments: Mapping[str, Any]) -> str:
    """Return what is equal for rows that can likely share forwards: "81 x 480 x 832, 512 tokens"."""
    num_frames = next((arguments[name] for name in FRAME_PARAMETERS if name in arguments), None)
    size = shape_text(num_frames, arguments.get("height"), arguments.get("width"))
    tokens = arguments.get("max_sequence_length")
    return ", ".join(filter(None, [size, f"{tokens} tokens" if tokens is not None else ""]))
