"""From a table's columns to what each row trains on: a video, and the arguments of the pipeline's call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa

from framefleet.pipeline.errors import JobError, TableError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.specs.check import check_argument, coerce
from framefleet.pipeline.model.specs.refusal import Problem, Refused, shown
from framefleet.pipeline.model.specs.signature import ArgumentKind, InputKind, ScalarKind
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, are_records
from framefleet.pipeline.rows.tables.column_checks import CLIP, check_type, is_picks
from framefleet.pipeline.rows.tables.limits import limits
from framefleet.pipeline.rows.tables.table import Table
from framefleet.pipeline.training.dataset import render_output
from framefleet.pipeline.training.settings import TrainedPart

_KINDS: tuple[InputKind, ...] = ("video", "image")  # an image is a video of one frame
PARAPHRASE, CONTRAST = "paraphrase", "contrast"  # texts that mean the same as the prompt, and another thing
REPEATS, MAX_REPEATS = "repeats", 10_000  # how often an epoch has the row
# What the denoiser is given besides its latents. Other arguments of a call say how to render, which training
# does not, or come from the video: its size, and the image that it starts with.
TOLD = re.compile(
    r"prompt(_\d)?|fps|frame_rate|max_sequence_length|motion_.*|noise_aug_strength|clip_skip|condition_type"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where in a table the rows of one training are.

    video: the column, None where none is needed; kind: what its cells name. read: argument to column.
    base: arguments of a row whose cells are all null. required: arguments that no row can do without.
    is_rendered: the table is a render job's records, and prompts are in their arguments.
    """

    table: Table
    video: str | None
    kind: InputKind
    read: Mapping[str, str]
    kinds: Mapping[str, ScalarKind]
    base: Mapping[str, Any]
    required: tuple[str, ...]
    is_rendered: bool
    spec: PipelineSpec

    @property
    def names(self) -> list[str]:
        """Return the columns of the table that are read."""
        more = [render_output.ARGUMENTS] if self.is_rendered else []
        if self.video is not None:
            more += render_output.clip_columns(self.table.schema) if self._is_of_clips else [self.video]
        return list(dict.fromkeys([*self.read.values(), *more]))

    @property
    def _is_of_clips(self) -> bool:
        return self.is_rendered and self.video == render_output.VIDEO

    def videos(self, batch: pa.RecordBatch) -> list[Any]:
        """Return the cells that name videos; null for every row where none is needed."""
        if self.video is None:
            return [None] * batch.num_rows
        if self._is_of_clips:
            return render_output.clips(batch, self.table.location, self.table.schema)
        cells: list[Any] = batch.column(self.video).to_pylist()
        return cells

    def arguments(self, batch: pa.RecordBatch) -> list[tuple[dict[str, Any], list[Problem]]]:
        """Return the checked arguments of every row, and its repeats; and what is wrong with its cells."""
        cells = {argument: batch.column(column).to_pylist() for argument, column in self.read.items()}
        rows = [dict(zip(cells, values, strict=True)) for values in zip(*cells.values(), strict=True)]
        rows = rows or [{} for _ in range(batch.num_rows)]
        if self.is_rendered:
            texts = batch.column(render_output.ARGUMENTS).to_pylist()
            rows = [
                render_output.with_prompts(text, row, self.kinds)
                for text, row in zip(texts, rows, strict=True)
            ]
        return [self._checked(row) for row in rows]

    def _checked(self, cells: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        arguments, problems = dict(self.base), []
        for name, cell in cells.items():
            if cell is None:
                continue
            value = _check(name, cell, self.kinds[name], self.spec)
            if isinstance(value, Refused):
                problems.append(self._problem(name, cell, value))
            else:
                arguments[name] = value
        missing = [name for name in self.required if name not in arguments and cells.get(name) is None]
        for name in missing:
            needed = Refused(reason=f"every row needs a {name}", fix="fill it in, or leave the row out")
            problems.append(self._problem(name, None, needed))
        if not problems:
            refused = [(name, why) for name, why in limits(self.spec, arguments) if name in self.kinds]
            problems += [self._problem(name, arguments.get(name), why) for name, why in refused]
        return arguments, problems

    def _problem(self, name: str, value: Any, refused: Refused) -> Problem:
        return Problem(self.read.get(name, name), value, refused)


def column_kinds(spec: PipelineSpec, columns: Mapping[str, str]) -> dict[str, ArgumentKind]:
    """Return the columns that a training may read, with what their cells should be; for `open_table`."""
    targets: dict[str, ArgumentKind] = {
        **{name: name for name in _KINDS},
        PARAPHRASE: "str",
        CONTRAST: "str",
        REPEATS: "int",
        **_told(spec),
    }
    return {columns.get(target, target): kind for target, kind in targets.items()}


def plan_columns(
    table: Table,
    spec: PipelineSpec,
    part: TrainedPart,
    *,
    columns: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Columns:
    """Return where the rows are; raises TableError for columns that lack, JobError for what the job says.

    columns: video, image, paraphrase or argument to the column that holds it. defaults: arguments of rows
    that give none.
    """
    if spec.kind == "audio":
        raise JobError(f"{spec.class_name} makes sound, and pictures are trained on", "train another model")
    columns, schema = columns or {}, table.schema
    is_rendered = are_records(schema)
    told = _told(spec)
    _check_mapped(columns, (*_KINDS, PARAPHRASE, CONTRAST, REPEATS, *told), schema)
    # Of records, and of picks, also what images and videos their clips were made from.
    clip = {spec.kind: CLIP} if is_picks(schema.names) else {}
    not_own = {*RECORD_FIELDS.names, *_KINDS} if is_rendered else {*_KINDS} if clip else set()
    own = [name for name in schema.names if name not in not_own]
    found = {**{name: name for name in own}, **clip, **columns}
    kinds = _kinds(part, told)
    read = {name: found[name] for name in kinds if name in found}
    required = tuple(name for name in ("prompt", PARAPHRASE) if name in kinds and part != "autoencoder")
    kind = next((name for name in _KINDS if name in found), None)
    of_clips = render_output.VIDEO if is_rendered else None
    video = None if part == "text_encoder" else found[kind] if kind else of_clips
    base = _base(defaults or {}, kinds, told, spec)
    needed = [name for name in required if name not in base and not (is_rendered and name == "prompt")]
    missing = [name for name in needed if name not in read]
    missing += ["video"] if video is None and part != "text_encoder" else []
    if missing:
        raise _missing(missing, schema)
    for name, column in read.items():
        check_type(schema.field(column), name, kinds[name])
    if is_rendered:
        check_type(schema.field(render_output.ARGUMENTS), render_output.ARGUMENTS, "str")
    if video is not None:
        check_type(schema.field(video), kind or spec.kind, kind or spec.kind)
    return Columns(
        table=table,
        video=video,
        kind=kind or spec.kind,
        read=read,
        kinds=kinds,
        base=base,
        required=required,
        is_rendered=is_rendered,
        spec=spec,
    )


def _told(spec: PipelineSpec) -> dict[str, ScalarKind]:
    settable = spec.settable().items()
    return {n: p.kind for n, p in settable if p.kind in get_args(ScalarKind) and TOLD.fullmatch(n)}  # type: ignore[misc]


def _kinds(part: TrainedPart, told: Mapping[str, ScalarKind]) -> dict[str, ScalarKind]:
    """Return what the part reads besides the video."""
    if part == "autoencoder":
        return {REPEATS: "int"}
    if part == "denoiser":
        return {**told, REPEATS: "int"}
    return {"prompt": "str", PARAPHRASE: "str", CONTRAST: "str", REPEATS: "int"}


def _base(
    defaults: Mapping[str, Any],
    kinds: Mapping[str, ScalarKind],
    told: Mapping[str, ScalarKind],
    spec: PipelineSpec,
) -> dict[str, Any]:
    base = {}
    for name, value in defaults.items():
        if name not in told:
            raise JobError(f"defaults.{name}: training has no such argument", did_you_mean(name, told))
        checked = _check(name, value, told[name], spec)
        if isinstance(checked, Refused):
            raise JobError(f"defaults.{name} is {shown(value)}, but {checked.reason}", checked.fix)
        if name in kinds:
            base[name] = checked
    return base


def _check_mapped(columns: Mapping[str, str], known: tuple[str, ...], schema: pa.Schema) -> None:
    for name, column in columns.items():
        if name not in known:
            raise JobError(f"columns.{name}: training reads no {name!r}", did_you_mean(name, known))
        if column not in schema.names:
            raise JobError(
                f"columns.{name} names the column {column!r}, and the table has none of that name",
                did_you_mean(column, schema.names),
            )


def _missing(missing: list[str], schema: pa.Schema) -> TableError:
    first = missing[0]
    return TableError(
        f"the table has no column {' and none '.join(map(repr, missing))}; it has {', '.join(schema.names)}",
        f"add it, or say which one it is with `columns: {{{first}: ...}}`",
    )


def _check(name: str, value: Any, kind: ScalarKind, spec: PipelineSpec) -> Any:
    if name == REPEATS:
        return _check_repeats(value)
    # They are prompts too: blank ones are refused.
    return check_argument("prompt" if name in (PARAPHRASE, CONTRAST) else name, value, kind, spec)


def _check_repeats(value: Any) -> Any:
    count = coerce(value, "int")
    if isinstance(count, Refused) or 1 <= int(count) <= MAX_REPEATS:
        return count
    return Refused(reason=f"it must be from 1 to {MAX_REPEATS:,}", fix="use 1, or leave the row out")
