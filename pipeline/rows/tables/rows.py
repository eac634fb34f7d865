"""From record batches to rows that are ready to render, and to refused rows with the reason.

A cell that names a file becomes a value with the file's SHA-256, which identifies the row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from framefleet.pipeline.errors import Problem, Refused, count_text, shape_text
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.lora import ARGUMENT as LORA
from framefleet.pipeline.model.specs import signature
from framefleet.pipeline.model.specs.check import MAX_IMAGES, check_frames, is_list, parsed_list
from framefleet.pipeline.model.specs.schedulers import SchedulerChoice
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS, PLACES, ArgumentKind
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.file_step import FileStep
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.request import Request, clip_fps, each_input, models_in
from framefleet.pipeline.rows.identity import derive_seed, lane_named, lane_of
from framefleet.pipeline.rows.inputs.fit import SIZE, SIZES, Fitted, fit_row, without_size
from framefleet.pipeline.rows.inputs.video_parts import as_text, bounded, split_part
from framefleet.pipeline.rows.tables.limits import frames_problem, late_problems, listed_steps
from framefleet.pipeline.rows.tables.other_words import (
    SECONDS,
    SIDES,
    SIZE_WORD,
    frames_in,
    frames_name,
    sides_in,
)
from framefleet.pipeline.rows.tables.record_columns import Carried, public_cell
from framefleet.pipeline.rows.tables.row_cells import readable

if TYPE_CHECKING:
    from framefleet.pipeline.rows.inputs.pictures import Described


class Finder:
    """Opens the files that rows name, many at a time, and each only once.

    This base class opens none, for rows that name no files, or whose job allows none. `InputIndex` does.
    """

    def prefetch(self, wanted: Iterable[tuple[str, signature.MediaKind]]) -> None:
        """Open all of these now, side by side."""

    def find(self, uri: str, kind: signature.MediaKind) -> Described | Refused:
        """Return what a file contains, or why it is not of that kind."""
        return Refused(reason="the job does not say where images may be", fix="set `inputs: {roots: [...]}`")

    def locate(self, uri: str) -> str:
        """Return an absolute path or URL of the same file."""
        return uri


def check_input(cell: Any, kind: signature.MediaKind, finder: Finder) -> dict[str, Any] | Refused:
    """Return {"uri", "sha256", SIZE}, for a video also "num_frames"; or why the input cannot be used."""
    cell = as_text(cell) if kind == "video" else cell
    if not isinstance(cell, str) or not cell.strip():
        return no_place(cell, kind)
    described = finder.find(cell.strip(), kind)
    if isinstance(described, Refused):
        return described
    if kind == "audio" and not described.num_frames:
        return Refused(reason="it has no sound", fix="use a file with a sound track")
    frames = {"num_frames": described.num_frames} if kind == "video" else {}
    frames |= {} if described.first_frame is None else {"first_frame": described.first_frame}
    file = cell.strip() if described.first_frame is None else split_part(cell.strip())[0]
    size = (described.height, described.width)
    return {"uri": finder.locate(file), "sha256": described.sha256, **frames, SIZE: size}


def no_place(cell: Any, kind: signature.MediaKind) -> Refused:
    """Return why a cell that is not text, or is blank, names no file."""
    fix = "write one, or leave the cell empty"
    if isinstance(cell, Mapping) and kind == "video":
        fix = "write {file: a.mp4, from: 1.5, to: 3}, in seconds, or from_frame and to_frame"
    return Refused(reason=f"it must be the path or URL of {signature.WITH_ARTICLE[kind]}", fix=fix)


def check_images(
    cell: Any, kind: signature.ImagesKind, finder: Finder
) -> dict[str, Any] | list[dict[str, Any]] | Refused:
    """Return the result of `check_input` for each image of a list, or for a single image.

    kind: "list[image]" returns a list for a single image too. A cell is a list, or a list as JSON text.
    """
    if not is_list(cell):
        value = check_input(cell, "image", finder)
        return value if isinstance(value, Refused) or kind == "images" else [value]
    places = places_in(cell)
    check = partial(check_input, kind="image", finder=finder)
    return _check_each(places, check, of="paths or URLs of images", fix='use one, e.g. ["a.png", "b.png"]')


def check_references(cell: Any, finder: Finder) -> list[dict[str, Any]] | Refused:
    """Return the result of `check_input` for each entry of a list of media, with its kind.

    A cell is a list of mappings such as {"image": "a.png"}, or such a list as JSON text. If a video has
    sound, that is part of the reference, and is checked too.
    """
    entries = places_in(cell) if is_list(cell) else []
    check = partial(_check_reference, finder=finder)
    return _check_each(entries, check, of="images, videos and sounds", fix=_REFERENCES)


def _check_each(
    entries: list[Any], check: Callable[[Any], dict[str, Any] | Refused], *, of: str, fix: str
) -> list[dict[str, Any]] | Refused:
    if not entries or len(entries) > MAX_IMAGES:
        return Refused(reason=f"it must be a list of 1 to {MAX_IMAGES} {of}", fix=fix)
    values = []
    for position, entry in enumerate(entries):
        value = check(entry)
        if isinstance(value, Refused):
            reason = f"its entry {position}, {public_cell(entry)!r}: {value.reason}"
            return Refused(reason=reason, fix=value.fix)
        values.append(value)
    return values


def _check_reference(entry: Any, finder: Finder) -> dict[str, Any] | Refused:
    places = _places_by_kind(entry)
    if len(places) != 1:
        reason = f"an entry must name one file, as one of {', '.join(signature.MEDIA)}"
        return Refused(reason=reason, fix=_REFERENCES)
    ((kind, place),) = places.items()
    if kind == "video" and isinstance(place, str) and split_part(place)[1]:
        return Refused(reason="a reference must be a whole video", fix="cut the part into a separate file")
    value = check_input(place, kind, finder)
    if isinstance(value, Refused):
        return value
    if kind == "video" and isinstance(sound := finder.find(place.strip(), "audio"), Refused):
        return sound
    return {"kind": kind, **value}


def _places_by_kind(entry: Any) -> dict[signature.MediaKind, Any]:
    """Return the files of an entry; in a column of structs, each entry has all fields, and most are null."""
    entry = entry if isinstance(entry, Mapping) else {}
    places = {key: place for key, place in entry.items() if place is not None}
    return places if places.keys() <= {*signature.MEDIA} else {}


def places_in(cell: Any) -> list[Any]:
    """Return the places that a cell names: one, those of its list, or none if the list is malformed."""
    parts = parsed_list(cell) if is_list(cell) else [cell]
    return parts if isinstance(parts, list) else []


def files_in(cell: Any, kind: signature.ArgumentKind) -> Iterator[tuple[str, signature.MediaKind]]:
    """Yield the files that a cell of this kind names, with the kind that each must have."""
    for place in places_in(as_text(cell) if kind == "video" else cell):
        files: list[tuple[signature.MediaKind, Any]] = [("video" if kind == "video" else "image", place)]
        if kind == "references":
            places = _places_by_kind(place)
            files = [*places.items()] + [("audio", place) for of, place in places.items() if of == "video"]
        yield from ((uri.strip(), of) for of, uri in files if isinstance(uri, str) and uri.strip())


def check_video_length(video: Any, num_wanted: int | None, spec: PipelineSpec) -> Refused | None:
    """Return why a row's video is too short, or does not fit the model's frame rule.

    num_wanted: the row's num_frames, which are taken from the start of the video; None for all frames. Not
    for pipelines that take a number of frames themselves: there the video is a part of the clip.
    """
    if any(name in spec.parameters for name in signature.FRAME_PARAMETERS):
        return None
    num_frames = video["num_frames"]
    if num_wanted is not None and num_frames < num_wanted:
        reason = f"it has {count_text(num_frames, 'frame')}, and num_frames is {num_wanted}"
        return Refused(reason=reason, fix=f"use {num_frames} or less")
    checked = check_frames(num_frames if num_wanted is None else num_wanted, spec)
    if not isinstance(checked, Refused) or num_wanted is not None:  # num_frames itself is already reported
        return None
    fix = f"{checked.fix}, or let the recipe video_to_video take the first num_frames"
    return Refused(reason=f"it has {count_text(num_frames, 'frame')}, and {checked.reason}", fix=fix)


_REFERENCES = 'write it as [{"image": "a.png"}, {"video": "b.mp4"}, {"audio": "c.wav"}]'


# Texts that differ between rows. No check combines them with other cells, except for whether they are set:
# `table_rows.py` relies on this.
OWN_TEXTS = ("prompt", "negative_prompt")
# From arguments, and the names of those that the row or `overrides` sets, to the arguments that are rendered,
# and the problems.
Rules = Callable[[dict[str, Any], Set[str]], tuple[dict[str, Any], list[tuple[str, Refused]]]]
# Returns why a row's steps cannot be stored.
KeepCheck = Callable[[Recipe, SchedulerChoice, Mapping[str, Any]], Refused | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRow:
    """A row that can be rendered.

    index: its position in the table, from 0.
    request: with resolved arguments (signature, then job, then row), the scheduler's canonical name, and a
        seed. `fps` is what the row itself sets, or None.
    shape: equal for rows that can likely share forwards.
    """

    index: int
    request: Request
    shape: str
    fitted: Fitted | None = None  # how its pictures were fitted, if it has any


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidRow:
    """A row that cannot be rendered, with everything that is wrong with it."""

    index: int
    problems: tuple[Problem, ...]

    def messages(self, place: str | None = None) -> list[tuple[str, str]]:
        """Return (problem, fix) pairs as in errors. place: where the row is in its file."""
        row = f"row {self.index}" + (f" ({place})" if place else "")
        return [(f"{row}: {problem}", problem.why.fix) for problem in self.problems]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One column with a meaning. check: takes a cell that is not null; returns a value or Refused."""

    column: str
    target: str
    kind: ArgumentKind
    is_argument: bool
    check: Callable[[Any], Any]
    bounds: tuple[str, ...] = ()  # columns that say which part of a video is meant


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """How the rows of one table become requests; made by `row_plan.plan_rows`."""

    readers: tuple[Reader, ...]
    base: Mapping[str, Any]  # the arguments of a row whose cells are all null
    overridden: Set[str]  # arguments that the job sets for every row
    required: tuple[str, ...]
    seed: int | None
    seconds: float | None  # for rows without seconds or frames
    scheduler: SchedulerChoice
    loras: Mapping[str, Any]  # for rows without LoRAs
    recipe: Recipe
    fps: float | None  # the job's own rate, if it has one
    finder: Finder
    spec: PipelineSpec
    # A pipeline's rules for combinations of arguments.
    rules: Rules | None
    check_keep: KeepCheck | None  # in a job that stores the steps
    file_steps: Collection[FileStep]
    carried: Carried  # columns that go into the record as they are
    argument_fields: pa.Schema  # columns that show the arguments
    lookalikes: tuple[tuple[str, str], ...]  # (carried column, argument that it may have meant)
    model: str = ""  # the name of the rows' model, if a job has several
    places: tuple[str, ...] = ()  # arguments that may name files
    fitting: tuple[str, ...] = ()  # of these, arguments whose pictures get the proportions of the row's size
    fit: signature.Fit | None = "stretch"  # how they get them; None: see `fit_row`
    is_sized: bool = False  # the job sets a size
    media: Media | None = None  # how clips are stored

    def rows(self, first_index: int, batch: pa.RecordBatch) -> Iterator[CheckedRow | InvalidRow]:
        """Yield every row of the batch in order. first_index: the position of the first."""
        refused, columns = self.columns(batch)
        rows = cells_of(columns, batch.num_rows)
        for offset in range(batch.num_rows):
            index = first_index + offset
            if offset in refused:
                yield InvalidRow(index=index, problems=tuple(refused[offset]))
            else:
                yield self.row(index, next(rows))

    def columns(self, batch: pa.RecordBatch) -> tuple[dict[int, list[Problem]], list[list[Any]]]:
        """Return the unreadable rows by offset, and for each reader the cells of all other rows."""
        bounds = [(at, name) for at, reader in enumerate(self.readers) for name in reader.bounds]
        names = [reader.column for reader in self.readers] + [name for _, name in bounds]
        readable_rows = readable(batch, names)
        columns = [_values(column) for column in readable_rows.cells.columns]
        for at, name in reversed(bounds):
            columns[at] = bounded(columns[at], self.readers[at].column, name, columns.pop())
        placed = [at for at, reader in enumerate(self.readers) if reader.kind in PLACES]
        cells = ((self.readers[at].kind, cell) for at in placed for cell in columns[at])
        self.finder.prefetch(file for kind, cell in cells for file in files_in(cell, kind))
        return readable_rows.refused, columns

    def row(self, index: int, cells: Sequence[Any]) -> CheckedRow | InvalidRow:
        """Return the row at `index` of the table. cells: one for each reader."""
        arguments = dict(self.base)
        special: dict[str, Any] = {}
        own = {*self.overridden}
        problems: list[Problem] = []
        for reader, cell in zip(self.readers, cells, strict=True):
            if cell is None:
                continue
            value = reader.check(cell)
            if type(value) is Refused:
                shown = public_cell(cell) if reader.kind in PLACES else cell
                problems.append(Problem(reader.column, shown, value))
                continue
            own.add(reader.target)
            if reader.is_argument:
                arguments[reader.target] = value
            else:
                special[reader.target] = value
        if self.seconds is not None or SIZE_WORD in special or SECONDS in special:
            problems += self._take_words(arguments, special, own)
        if self.rules and not problems:
            passed, refused = self.rules(arguments, own)
            problems += self._problems(refused, arguments | passed) if refused else []
            arguments = passed
        fitted = None
        if self.places and not problems:
            is_auto = special.get(SIZE_WORD, ()) is None
            is_sized = (self.is_sized and not is_auto) or not own.isdisjoint(SIZES)
            arguments, fitted, refused = fit_row(
                arguments, self.fitting, self.spec, fit=self.fit, is_sized=is_sized
            )
            problems += self._problems(refused, arguments)
            arguments |= {
                name: each_input(arguments[name], without_size) for name in self.places if name in arguments
            }
        steps = listed_steps(arguments) if "num_inference_steps" in self.spec.parameters else None
        if steps is not None and "num_inference_steps" not in own:
            arguments["num_inference_steps"] = steps
        choice: SchedulerChoice = special.get("scheduler", self.scheduler)
        problems += self._across(arguments, choice, {problem.column for problem in problems})
        recipe: Recipe = special.get("recipe", self.recipe)
        fps: float | None = special.get("fps")
        if fps is not None and self.media and not recipe.is_own:
            has_sound = self.spec.has_sound and self.media.audio
            native = self.spec.fps_of(arguments) if has_sound and arguments.get("num_frames") != 1 else None
            refused_rate = self.media.refusal(fps, native)
            problems += [Problem(self._column("fps"), fps, refused_rate)] if refused_rate else []
        elif fps is None and self.fps is None and self.media and not recipe.is_own:
            name = "frame_rate" if "frame_rate" in arguments else "fps"
            rate = self.spec.fps_of(arguments) if name in arguments else None
            too_fast = self.media.refusal(rate) if rate and arguments.get("num_frames") != 1 else None
            problems += [Problem(self._column(name), rate, too_fast)] if too_fast else []
        if fps is None and "duration_s" in arguments:  # the rate decides how many frames that is
            fps = clip_fps(self.fps, self.spec.fps_of(arguments))
        if not problems:
            late = late_problems(self.spec, recipe, arguments, fps=fps, scheduler=choice)
            video = arguments.get("video")
            if video and not self.spec.family.row_rules:
                too_short = check_video_length(video, arguments.get("num_frames"), self.spec)
                late += [("video", too_short)] if too_short else []
            problems += self._problems(late, arguments)
            if not recipe.is_own:
                for least in filter(None, (step.least_frames for step in self.file_steps)):
                    rate = clip_fps(fps, self.fps, self.spec.fps_of(arguments))
                    too_fast = self.media.refusal(rate, times=least.times) if self.media else None
                    of_step = frames_problem(least, self.spec.kind, arguments, too_fast)
                    problems += [of_step] if of_step else []
        if self.check_keep and (why := self.check_keep(recipe, choice, arguments)):
            problems.append(Problem(self._column("scheduler"), choice.canonical, why))
        if problems:
            return InvalidRow(index=index, problems=tuple(problems))
        if loras := special.get(LORA, self.loras):
            arguments[LORA] = loras
        seed = special.get("seed", self.seed)
        if seed is None:
            seed = derive_seed(arguments=arguments, scheduler=choice.canonical, recipe=recipe.name)
        names = {"scheduler": choice.canonical, "recipe": recipe.name, "model": self.model}
        request = Request(arguments=arguments, seed=seed, fps=fps, **names)
        # Rows of other lanes never share forwards with the job's own. A worker loads only one second model.
        is_elsewhere = lane_of(request) != lane_named(self.model, self.recipe.name)
        others = filter(None, [self.model, recipe.name if is_elsewhere else "", *models_in(arguments)])
        shape = ": ".join([*others, shape_of(arguments)])
        return CheckedRow(index=index, request=request, shape=shape, fitted=fitted)

    def _take_words(
        self, arguments: dict[str, Any], special: Mapping[str, Any], own: set[str]
    ) -> Iterator[Problem]:
        """Turn size and seconds into arguments; yield their problems. own: names that the row or job sets."""
        of_row = own - self.overridden
        if special.get(SIZE_WORD, ()) is None:  # "auto"
            usual = self.spec.defaults()
            for name in {*SIDES} - own:
                arguments.pop(name, None)
                arguments |= {name: usual[name]} if name in usual else {}
        if (size := special.get(SIZE_WORD)) is not None:
            for name, side in sides_in(size, arguments, of_row, self.spec):
                if name in self.overridden:
                    continue
                if isinstance(side, Refused):
                    yield Problem(self._column(SIZE_WORD), f"{size[0]}x{size[1]}", side)
                else:
                    arguments[name] = side
                    own.add(name)
        frames = frames_name(self.spec)
        seconds = special.get(SECONDS, None if frames in of_row else self.seconds)
        if seconds is None or frames is None or frames in self.overridden:
            return
        fps = clip_fps(special.get("fps"), self.fps, self.spec.fps_of(arguments))
        num_frames = frames_in(seconds, fps, arguments, of_row, self.spec)
        if isinstance(num_frames, Refused):
            yield Problem(self._column(SECONDS), seconds, num_frames)
        else:
            arguments[frames] = num_frames
            own.add(frames)

    def _across(
        self, arguments: Mapping[str, Any], choice: SchedulerChoice, refused: set[str]
    ) -> list[Problem]:
        """Return problems of cells that are fine separately. refused: columns that are already reported."""
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
        self, refusals: Iterable[tuple[str, Refused]], arguments: Mapping[str, Any]
    ) -> Iterator[Problem]:
        for name, refused in refusals:
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
    """Return decimals (DuckDB writes 5.0 as one) as int or float; whole numbers stay exact."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if not isinstance(value, Decimal):
        return value
    return int(value) if value == value.to_integral_value() else float(value)


def shape_of(arguments: Mapping[str, Any]) -> str:
    """Return a text that is equal for rows that can likely share forwards: "81 x 480 x 832, 512 tokens"."""
    num_frames = next((arguments[name] for name in FRAME_PARAMETERS if name in arguments), None)
    size = shape_text(num_frames, arguments.get("height"), arguments.get("width"))
    tokens = arguments.get("max_sequence_length")
    return ", ".join(filter(None, [size, f"{tokens} tokens" if tokens is not None else ""]))
