"""From record batches to rows that are ready to render, and rows that are refused with the reason.

A cell that names media by path or URL becomes the value that identifies its row.
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
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.request import Request, clip_fps, each_input, models_in
from framefleet.pipeline.rows.identity import derive_seed, lane_named, lane_of
from framefleet.pipeline.rows.inputs.fit import SIZE, SIZES, Fitted, fit_row, without_size
from framefleet.pipeline.rows.inputs.video_parts import as_text, bounded, split_part
from framefleet.pipeline.rows.tables.limits import frames_problem, late_problems, listed_steps
from framefleet.pipeline.rows.tables.other_words import SECONDS, SIZE_WORD, frames_in, frames_name, sides_in
from framefleet.pipeline.rows.tables.record_columns import Carried, public_cell
from framefleet.pipeline.rows.tables.row_cells import readable

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.file_step import FileStep
    from framefleet.pipeline.rows.inputs.pictures import Described


class Finder:
    """Opens what rows name, each once, many at a time; this one nothing, for plans of rows that name nothing,
    or whose job does not say where it may lie. `InputIndex` is the one that does.
    """

    def prefetch(self, wanted: Iterable[tuple[str, signature.MediaKind]]) -> None:
        """Open all of these now, side by side."""

    def find(self, uri: str, kind: signature.MediaKind) -> Described | Refused:
        """Return what a file holds, or why it is not of that kind."""
        return Refused(reason="nothing says where images may lie", fix="set `inputs: {roots: [...]}`")

    def locate(self, uri: str) -> str:
        """Return what names the same file in any folder."""
        return uri


def check_input(cell: Any, kind: signature.MediaKind, finder: Finder) -> dict[str, Any] | Refused:
    """Return {"uri", "sha256", SIZE}, and "num_frames" of a video; or why it cannot be rendered from."""
    cell = as_text(cell) if kind == "video" else cell
    if not isinstance(cell, str) or not cell.strip():
        fix = "write one, or leave it empty"
        if isinstance(cell, Mapping) and kind == "video":
            fix = "write {file: a.mp4, from: 1.5, to: 3}, in seconds, or from_frame and to_frame"
        return Refused(reason=f"it must be the path or URL of {_A[kind]}", fix=fix)
    seen = finder.find(cell.strip(), kind)
    if isinstance(seen, Refused):
        return seen
    if kind == "audio" and not seen.num_frames:
        return Refused(reason="it has no sound", fix="give a file with a sound track")
    frames = {"num_frames": seen.num_frames} if kind == "video" else {}
    frames |= {} if seen.first_frame is None else {"first_frame": seen.first_frame}
    file = cell.strip() if seen.first_frame is None else split_part(cell.strip())[0]
    size = (seen.height, seen.width)
    return {"uri": finder.locate(file), "sha256": seen.sha256, **frames, SIZE: size}


def check_images(
    cell: Any, kind: signature.ImagesKind, finder: Finder
) -> dict[str, Any] | list[dict[str, Any]] | Refused:
    """Return what `check_input` does for each image of a list; of one that is not a list, for it alone.

    kind: "list[image]" makes a list of one image too. A cell is a list, or JSON text of one.
    """
    if not is_list(cell):
        value = check_input(cell, "image", finder)
        return value if isinstance(value, Refused) or kind == "images" else [value]
    places = places_in(cell)
    check = partial(check_input, kind="image", finder=finder)
    return _check_each(places, check, of="paths or URLs of images", fix='use one, e.g. ["a.png", "b.png"]')


def check_references(cell: Any, finder: Finder) -> list[dict[str, Any]] | Refused:
    """Return what `check_input` does for each entry of a list of media, and its kind, in order.

    A cell is a list of mappings such as {"image": "a.png"}, or JSON text of one. A video's sound, if it has
    any, is a part of the reference, and checked too.
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
        reason = f"an entry names one file, as one of {', '.join(signature.MEDIA)}"
        return Refused(reason=reason, fix=_REFERENCES)
    ((kind, place),) = places.items()
    if kind == "video" and isinstance(place, str) and split_part(place)[1]:
        return Refused(reason="a reference is a whole video", fix="cut the part into a file of its own")
    value = check_input(place, kind, finder)
    if isinstance(value, Refused):
        return value
    if kind == "video" and isinstance(sound := finder.find(place.strip(), "audio"), Refused):
        return sound
    return {"kind": kind, **value}


def _places_by_kind(entry: Any) -> dict[signature.MediaKind, Any]:
    """Return what an entry names; in a column of structs, every entry has all fields, and most are null."""
    entry = entry if isinstance(entry, Mapping) else {}
    places = {key: place for key, place in entry.items() if place is not None}
    return places if places.keys() <= {*signature.MEDIA} else {}


def places_in(cell: Any) -> list[Any]:
    """Return what a cell names: one place, those of its list, or none where it is no such list."""
    parts = parsed_list(cell) if is_list(cell) else [cell]
    return parts if isinstance(parts, list) else []


def files_in(cell: Any, kind: signature.ArgumentKind) -> Iterator[tuple[str, signature.MediaKind]]:
    """Yield the files that a cell of this kind names, with what each has to be."""
    for place in places_in(as_text(cell) if kind == "video" else cell):
        files: list[tuple[signature.MediaKind, Any]] = [("video" if kind == "video" else "image", place)]
        if kind == "references":
            places = _places_by_kind(place)
            files = [*places.items()] + [("audio", place) for of, place in places.items() if of == "video"]
        yield from ((uri.strip(), of) for of, uri in files if isinstance(uri, str) and uri.strip())


def check_video_length(video: Any, asked: int | None, spec: PipelineSpec) -> Refused | None:
    """Return why a row's video is too short, or does not fit the model's frame rule.

    asked: the row's own num_frames, the first of which are taken; None where all are. Not where the pipeline
    itself takes a number of frames: there the video is a part of the clip.
    """
    if any(name in spec.parameters for name in signature.FRAME_PARAMETERS):
        return None
    num_frames = video["num_frames"]
    if asked is not None and num_frames < asked:
        reason = f"it has {count_text(num_frames, 'frame')}, and num_frames is {asked}"
        return Refused(reason=reason, fix=f"use {num_frames} or less")
    checked = check_frames(num_frames if asked is None else asked, spec)
    if not isinstance(checked, Refused) or asked is not None:  # num_frames itself is reported already
        return None
    fix = f"{checked.fix}, or let the recipe video_to_video take the first num_frames"
    return Refused(reason=f"it has {count_text(num_frames, 'frame')}, and {checked.reason}", fix=fix)


_A = {"image": "an image", "video": "a video", "audio": "a sound"}
_REFERENCES = 'write it as [{"image": "a.png"}, {"video": "b.mp4"}, {"audio": "c.wav"}]'


# Texts that each row has for itself. No check looks at them together with other cells, but for whether they
# are given: `table_rows.py` rests on it.
OWN_TEXTS = ("prompt", "negative_prompt")
# From arguments and the names of those that the row or `overrides` gives, to what is rendered, and what is
# wrong.
Rules = Callable[[dict[str, Any], Set[str]], tuple[dict[str, Any], list[tuple[str, Refused]]]]
# Why nothing of a row's steps can be stored.
KeepCheck = Callable[[Recipe, SchedulerChoice, Mapping[str, Any]], Refused | None]


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
    fitted: Fitted | None = None  # what was done to its pictures, if it starts from some


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
    bounds: tuple[str, ...] = ()  # columns that say which part of a video is meant


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """How the rows of one table become requests; made by `row_plan.plan_rows`."""

    readers: tuple[Reader, ...]
    base: Mapping[str, Any]  # the arguments of a row whose cells are all null
    overridden: Set[str]  # those that the job gives to every row
    required: tuple[str, ...]
    seed: int | None
    seconds: float | None  # of a clip whose row gives neither seconds nor frames
    scheduler: SchedulerChoice
    loras: Mapping[str, Any]  # the LoRAs of such a row
    recipe: Recipe
    fps: float | None  # the job's own rate, if it has one
    finder: Finder
    spec: PipelineSpec
    # What a pipeline allows in a row beyond each argument's own rule.
    rules: Rules | None
    check_keep: KeepCheck | None  # of a job that stores the steps
    file_steps: Collection[FileStep]
    carried: Carried  # columns that go into the record as they are
    argument_fields: pa.Schema  # columns that show the arguments
    lookalikes: tuple[tuple[str, str], ...]  # (carried column, argument that it may have meant)
    model: str = ""  # the name of the rows' model, if a job has several
    places: tuple[str, ...] = ()  # the arguments of rows that may name files
    fitting: tuple[str, ...] = ()  # those of them whose pictures get the proportions of the row's size
    fit: signature.Fit | None = "stretch"  # how; None: see `fit_row`
    is_sized: bool = False  # the job gives its rows a size

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
        bounds = [(at, name) for at, reader in enumerate(self.readers) for name in reader.bounds]
        names = [reader.column for reader in self.readers] + [name for _, name in bounds]
        readable_rows = readable(batch, names)
        columns = [_values(column) for column in readable_rows.cells.columns]
        for at, name in reversed(bounds):
            key = name.removeprefix(f"{self.readers[at].column}_")
            columns[at] = [
                bounded(cell, key, bound) for cell, bound in zip(columns[at], columns.pop(), strict=True)
            ]
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
        filled = (reader.target for reader, cell in zip(self.readers, cells, strict=True) if cell is not None)
        own = {*self.overridden, *filled}
        if self.seconds is not None or SIZE_WORD in special or SECONDS in special:
            problems += self._take_words(arguments, special, own)
        if self.rules and not problems:
            taken, refused = self.rules(arguments, own)
            problems += self._problems(refused, arguments | taken) if refused else []
            arguments = taken
        fitted = None
        if self.places and not problems:
            is_sized = self.is_sized or not own.isdisjoint(SIZES)
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
        if fps is None and "duration_s" in arguments:  # the rate that makes seconds frames
            fps = clip_fps(self.fps, self.spec.fps_of(arguments))
        if not problems:
            late = late_problems(self.spec, recipe, arguments, fps=fps, scheduler=choice)
            video = arguments.get("video")
            if video and not self.spec.family.row_rules:
                too_short = check_video_length(video, arguments.get("num_frames"), self.spec)
                late += [("video", too_short)] if too_short else []
            problems += self._problems(late, arguments)
            if not recipe.is_own:
                least = (step.least_frames for step in self.file_steps)
                of_steps = (frames_problem(one, self.spec.kind, arguments) for one in least if one)
                problems += filter(None, of_steps)
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
        # Rows of other lanes than the job's own never share forwards. A worker has one second model loaded.
        is_elsewhere = lane_of(request) != lane_named(self.model, self.recipe.name)
        others = filter(None, [self.model, recipe.name if is_elsewhere else "", *models_in(arguments)])
        shape = ": ".join([*others, shape_of(arguments)])
        return CheckedRow(index=index, request=request, shape=shape, fitted=fitted)

    def _take_words(
        self, arguments: dict[str, Any], special: Mapping[str, Any], own: set[str]
    ) -> Iterator[Problem]:
        """Put size and seconds into a row's arguments; yield what is wrong with them. own: what it gives."""
        given = own - self.overridden
        if (size := special.get(SIZE_WORD)) is not None:
            for name, side in sides_in(size, arguments, given, self.spec):
                if name in self.overridden:
                    continue
                if isinstance(side, Refused):
                    yield Problem(self._column(SIZE_WORD), f"{size[0]}x{size[1]}", side)
                else:
                    arguments[name] = side
                    own.add(name)
        frames = frames_name(self.spec)
        seconds = special.get(SECONDS, None if frames in given else self.seconds)
        if seconds is None or frames is None or frames in self.overridden:
            return
        fps = clip_fps(special.get("fps"), self.fps, self.spec.fps_of(arguments))
        num_frames = frames_in(seconds, fps, arguments, given, self.spec)
        if isinstance(num_frames, Refused):
            yield Problem(self._column(SECONDS), seconds, num_frames)
        else:
            arguments[frames] = num_frames
            own.add(frames)

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
