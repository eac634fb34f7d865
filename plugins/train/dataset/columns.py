"""Reads each row's video and the arguments of the pipeline's call from a table's columns.

A render job's output is a table too: the clips of its records are the videos.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa

from framefleet.api.engines import ArgumentKind
from framefleet.api.errors import JobError, Problem, Refused, TableError, shown
from framefleet.api.models import PipelineSpec
from framefleet.api.outputs import RECORD_FIELDS, RECORDS, told_arguments
from framefleet.api.texts import did_you_mean
from framefleet.pipeline.model.specs.check import check_argument, coerce
from framefleet.pipeline.model.specs.signature import InputKind, ScalarKind
from framefleet.pipeline.outputs.parts.records import are_records
from framefleet.pipeline.rows.inputs.video_parts import COLUMN_ENDS, bounded, bounding_columns
from framefleet.pipeline.rows.tables.column_checks import CLIP, check_ends, check_type, is_picks
from framefleet.pipeline.rows.tables.limits import limits
from framefleet.pipeline.rows.tables.table import Table, folder_of
from framefleet.plugins.train.job import TrainedPart

_KINDS: tuple[InputKind, ...] = ("video", "image")  # an image is a video of one frame
PARAPHRASE, CONTRAST = "paraphrase", "contrast"  # texts that mean the same as the prompt, and another thing
REPEATS, MAX_REPEATS = "repeats", 10_000  # how often an epoch has the row
# What the denoiser is given besides its latents. Other arguments of a call say how to render, which training
# does not, or come from the video: its size, and the image that it starts with.
TOLD = re.compile(
    r"prompt(_\d)?|fps|frame_rate|max_sequence_length|motion_.*|noise_aug_strength|clip_skip|condition_type"
)
_URI, _ARGUMENTS = "uri", "arguments"  # columns of records


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a table that a training reads."""

    table: Table
    video: str | None  # the column; None if none is needed
    kind: InputKind  # what its cells name
    read: Mapping[str, str]  # argument to column
    kinds: Mapping[str, ScalarKind]
    base: Mapping[str, Any]  # arguments of a row whose cells are all null
    required: tuple[str, ...]  # arguments that no row can do without
    is_rendered: bool  # the table is a render job's records, and prompts are in their arguments
    spec: PipelineSpec

    @property
    def names(self) -> list[str]:
        more = [_ARGUMENTS] if self.is_rendered else []
        if self.video is not None:
            clips = [name for name in (_URI, CLIP) if name in self.table.schema.names]
            more += clips if self._is_of_clips else [self.video, *self._bounds]
        return list(dict.fromkeys([*self.read.values(), *more]))

    @property
    def _is_of_clips(self) -> bool:
        return self.is_rendered and self.video == _URI

    @property
    def _bounds(self) -> tuple[str, ...]:
        """The columns that say which part of a video is meant."""
        if self.video is None or self.kind != "video":
            return ()
        return bounding_columns(self.video, self.table.schema.names)

    def videos(self, batch: pa.RecordBatch) -> list[Any]:
        """Return the cells that name videos, or parts of them; null for every row where none is needed."""
        if self.video is None:
            return [None] * batch.num_rows
        if self._is_of_clips:
            # Where the clips of records lie in their output, which may have been moved since.
            is_there = _is_in_output(folder_of(self.table.location), self.table.schema)
            return list(batch.column(CLIP if is_there else _URI).to_pylist())
        cells: list[Any] = batch.column(self.video).to_pylist()
        for bound in self._bounds:
            cells = bounded(cells, self.video, bound, batch.column(bound).to_pylist())
        return cells

    def arguments(self, batch: pa.RecordBatch) -> list[tuple[dict[str, Any], list[Problem]]]:
        """Return the checked arguments of every row, and its repeats; and what is wrong with its cells."""
        cells = {argument: batch.column(column).to_pylist() for argument, column in self.read.items()}
        rows = [dict(zip(cells, values, strict=True)) for values in zip(*cells.values(), strict=True)]
        rows = rows or [{} for _ in range(batch.num_rows)]
        if self.is_rendered:
            texts = batch.column(_ARGUMENTS).to_pylist()
            chosen = {argument for argument, column in self.read.items() if argument != column}
            pairs = zip(texts, rows, strict=True)
            rows = [_with_prompts(text, row, self.kinds, chosen=chosen) for text, row in pairs]
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
    """Return the columns that a training may read, with the kinds of their cells; for `open_table`."""
    targets: dict[str, ArgumentKind] = {
        **{name: name for name in _KINDS},
        PARAPHRASE: "str",
        CONTRAST: "str",
        REPEATS: "int",
        **_call_kinds(spec),
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
        raise JobError(f"{spec.class_name} makes sound, which training cannot use", "train another model")
    columns, schema = columns or {}, table.schema
    is_rendered = are_records(schema)
    call_kinds = _call_kinds(spec)
    targets = (*_KINDS, PARAPHRASE, CONTRAST, REPEATS, *call_kinds)
    for name, column in columns.items():
        if name not in targets:
            raise JobError(f"columns.{name}: training reads no {name!r}", did_you_mean(name, targets))
        if column not in schema.names:
            problem = f"columns.{name} names the column {column!r}, but the table has none"
            raise JobError(problem, did_you_mean(column, schema.names))
    # Of records, and of picks, also what images and videos their clips were made from.
    clip = {spec.kind: CLIP} if is_picks(schema.names) else {}
    not_own = {*RECORD_FIELDS.names, *_KINDS} if is_rendered else {*_KINDS} if clip else set()
    own = [name for name in schema.names if name not in not_own]
    column_of = {**{name: name for name in own}, **clip, **columns}
    texts: dict[str, ScalarKind] = {"prompt": "str", PARAPHRASE: "str", CONTRAST: "str"}
    of_part: dict[str, dict[str, ScalarKind]] = {
        "autoencoder": {},
        "denoiser": call_kinds,
        "text_encoder": texts,
    }
    kinds: dict[str, ScalarKind] = {**of_part[part], REPEATS: "int"}
    read = {name: column_of[name] for name in kinds if name in column_of}
    required = tuple(name for name in ("prompt", PARAPHRASE) if name in kinds and part != "autoencoder")
    kind = next((name for name in _KINDS if name in column_of), None)
    of_clips = _URI if is_rendered else None
    video = None if part == "text_encoder" else column_of[kind] if kind else of_clips
    base = _base(defaults or {}, kinds, call_kinds, spec)
    needed = [name for name in required if name not in base and not (is_rendered and name == "prompt")]
    missing = [name for name in needed if name not in read]
    missing += ["video"] if video is None and part != "text_encoder" else []
    if missing:
        first = missing[0]
        raise TableError(
            f"the table has no column {' and none '.join(map(repr, missing))}; "
            f"it has {', '.join(schema.names)}",
            f"add it, or say which one it is with `columns: {{{first}: ...}}`",
        )
    for name, column in read.items():
        check_type(schema.field(column), name, kinds[name])
    if is_rendered:
        check_type(schema.field(_ARGUMENTS), _ARGUMENTS, "str")
    if video is not None:
        check_type(schema.field(video), kind or spec.kind, kind or spec.kind)
        if kind == "video" and not (is_rendered or clip):  # whose clips may have been made from such parts
            check_ends(schema.names, {kind: video}, ends=COLUMN_ENDS)
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


def _call_kinds(spec: PipelineSpec) -> dict[str, ScalarKind]:
    settable = spec.settable().items()
    return {n: p.kind for n, p in settable if p.kind in get_args(ScalarKind) and TOLD.fullmatch(n)}  # type: ignore[misc]


def _base(
    defaults: Mapping[str, Any],
    kinds: Mapping[str, ScalarKind],
    call_kinds: Mapping[str, ScalarKind],
    spec: PipelineSpec,
) -> dict[str, Any]:
    base = {}
    for name, value in defaults.items():
        if name not in call_kinds:
            raise JobError(f"defaults.{name}: training has no such argument", did_you_mean(name, call_kinds))
        if value is None:
            continue
        checked = _check(name, value, call_kinds[name], spec)
        if isinstance(checked, Refused):
            raise JobError(f"defaults.{name} is {shown(value)}, but {checked.reason}", checked.fix)
        if name in kinds:
            base[name] = checked
    return base


def _check(name: str, value: Any, kind: ScalarKind, spec: PipelineSpec) -> Any:
    if name == REPEATS:
        count = coerce(value, "int")
        if isinstance(count, Refused) or 1 <= int(count) <= MAX_REPEATS:
            return count
        return Refused(reason=f"it must be from 1 to {MAX_REPEATS:,}", fix="use 1, or leave the row out")
    # They are prompts too: blank ones are refused.
    return check_argument("prompt" if name in (PARAPHRASE, CONTRAST) else name, value, kind, spec)


def table_folder(location: str, schema: pa.Schema) -> str:
    """Return the folder that paths of a table are relative to, for `Inputs`: of records, the whole output."""
    folder = folder_of(location)
    return folder.rstrip("/").rpartition("/")[0] if _is_in_output(folder, schema) else folder


def _with_prompts(
    text: str | None, row: Mapping[str, Any], names: Collection[str], *, chosen: Collection[str]
) -> dict[str, Any]:
    """Return what a record gives of these arguments: its prompts, and what it carries.

    Other arguments, whose columns are in `row` too, were maybe another model's defaults. text: of its
    arguments. chosen: those that the job takes from other columns, and from nowhere else.
    """
    arguments = told_arguments({_ARGUMENTS: text})
    # Without lone surrogates, which JSON can spell and no column of text can hold.
    prompts = {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in arguments.items()
        if name.startswith("prompt")
    }
    carried = {name: cell for name, cell in row.items() if name not in arguments}
    edited = {name: row[name] for name in prompts if row.get(name) is not None}
    taken = {name: row.get(name) for name in chosen}
    return {name: value for name, value in (prompts | carried | edited | taken).items() if name in names}


def _is_in_output(folder: str, schema: pa.Schema) -> bool:
    parent, _, name = folder.rstrip("/").rpartition("/")
    return are_records(schema) and CLIP in schema.names and name == RECORDS and bool(parent)
