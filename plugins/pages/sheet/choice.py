"""Choose the clips to show and their places, and draw small clips as a grid with names."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from framefleet.api.clips import Frames
from framefleet.api.errors import JobError
from framefleet.api.outputs import RECORDS, Output, Store, fix_of_missing, rows_of, told_arguments
from framefleet.pipeline.outputs.output import FRAMES_OF
from framefleet.plugins.pictures import contact_sheet
from framefleet.plugins.pictures.lettering import draw_line, runs_of

_READ = [*FRAMES_OF, "row_indices", "fps", "seed", "arguments", "frames_sha256"]
MAX_CLIPS = 1000  # a picture with more is of no use
_MAX_VALUE = 500  # characters of a value at a grid's side
MAX_AXIS_VALUES = 10_000  # values of a column that are read; the first of them are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipChoice:
    rows: str | None = None  # a column whose values are at the left
    columns: str | None = None  # and at the top
    where: str | None = None  # SQL on columns
    limit: int = 60  # the most clips to show
    captions: tuple[str, ...] = ()  # columns to show below each clip; () is prompt and seed

    @property
    def names(self) -> list[str]:
        return [name for name in (self.rows, self.columns, *self.captions) if name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A record and its place in a grid."""

    record: Mapping[str, Any]
    row: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The clips of a picture."""

    clips: list[Placed]
    row_names: list[str]  # at the side; [] for clips in the table's order
    column_names: list[str]
    num_found: int  # records of this choice
    num_more: int = 0  # of them, those whose cell is taken


def chosen_of(store: Store, choice: ClipChoice) -> Chosen:
    """Return the clips to show. Raises JobError for an unknown column, and if there is no clip."""
    if not 1 <= choice.limit <= MAX_CLIPS:
        raise JobError(f"limit is {choice.limit}", f"use 1 to {MAX_CLIPS:,}")
    columns = list(Output(store).schema().names)
    first = next(_records(store, choice), None)
    columns += [name for name in (told_arguments(first) if first else {}) if name not in columns]
    for name in choice.names if first else ():
        if name not in columns:
            raise JobError(f"{store.url_of(RECORDS)} has no column {name!r}", fix_of_missing(name, columns))
    chosen = _by_axes(store, choice) if choice.rows or choice.columns else _in_order(store, choice)
    if not chosen.clips:
        which = f" where {choice.where}" if choice.where else ""
        raise JobError(f"{store.url_of(RECORDS)} has no clip{which}", "wait for the first, or choose others")
    return chosen


def value_of(record: Mapping[str, Any], name: str) -> Hashable:
    """Return what a record says: in a column, or in its arguments."""
    value = record.get(name)
    if value is None:
        value = told_arguments(record).get(name)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)[:_MAX_VALUE]


def _records(store: Store, choice: ClipChoice) -> Iterator[dict[str, Any]]:
    """Yield what is read of the records with a picture that the condition holds for."""
    output = Output(store)
    names = [name for name in choice.names if name in output.schema().names]  # others are arguments
    for table in output.records([*dict.fromkeys([*_READ, *names])], where=choice.where):
        for record in rows_of(table, store.url_of(RECORDS)):
            if record["frames_sha256"]:
                yield record


def _in_order(store: Store, choice: ClipChoice) -> Chosen:
    """Return the first clips by their position in the table, in as many columns as make it square."""
    num_found = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal num_found
        for record in _records(store, choice):
            num_found += 1
            yield record

    first = heapq.nsmallest(choice.limit, counted(), key=_position)
    width = max(1, math.ceil(math.sqrt(len(first))))
    clips = [
        Placed(record=record, row=place // width, column=place % width) for place, record in enumerate(first)
    ]
    return Chosen(clips=clips, row_names=[], column_names=[], num_found=num_found)


def _by_axes(store: Store, choice: ClipChoice) -> Chosen:
    """Return the first record of each cell by its position in the table."""
    num_found = 0
    rows: dict[Hashable, int] = {}
    columns: dict[Hashable, int] = {}
    for record, row, column in _valued(store, choice):
        num_found += 1
        _note(rows, row, record, choice.rows)
        _note(columns, column, record, choice.columns)
    across = min(len(columns), max(1, choice.limit // max(1, min(len(rows), math.isqrt(choice.limit)))))
    left, top = _side(rows, max(1, choice.limit // max(1, across))), _side(columns, across)
    cells: dict[tuple[int, int], Mapping[str, Any]] = {}
    num_more = 0
    for record, row, column in _valued(store, choice):
        if row in left and column in top:
            cell = left[row], top[column]
            num_more += cell in cells
            if cell not in cells or record["row_indices"] < cells[cell]["row_indices"]:
                cells[cell] = record
    return Chosen(
        clips=[Placed(record=cells[row, column], row=row, column=column) for row, column in sorted(cells)],
        row_names=_names(left, choice.rows) if choice.rows else [],
        column_names=_names(top, choice.columns) if choice.columns else [],
        num_found=num_found,
        num_more=num_more,
    )


def _note(
    first_seen: dict[Hashable, int], value: Hashable, record: Mapping[str, Any], name: str | None
) -> None:
    """Note the position where a value is first. Raises JobError where a column has too many values."""
    first_seen[value] = min(_position(record), first_seen.get(value, _position(record)))
    if len(first_seen) > MAX_AXIS_VALUES:
        problem = f"column {name or ''!r} has more than {MAX_AXIS_VALUES:,} values"
        raise JobError(problem, "choose another column, or fewer rows with --where")


def _side(first_seen: Mapping[Hashable, int], most: int) -> dict[Hashable, int]:
    """Return at most this many values and their places: numbers by size, others as in the table."""
    values = sorted(first_seen, key=lambda value: first_seen[value])[:most]
    numbers = [value for value in values if isinstance(value, int | float)]
    ordered = sorted(numbers) if len(numbers) == len(values) else values
    return {value: place for place, value in enumerate(ordered)}


def _names(values: Iterable[Hashable], name: str) -> list[str]:
    """Return what is written at a side: texts as they are, numbers with the name of their column."""
    return [value if isinstance(value, str) else f"{name} {caption_text(value)}" for value in values]


def caption_text(value: object) -> str:
    """Return a value as captions show it; whole numbers of any size are written out."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _valued(store: Store, choice: ClipChoice) -> Iterator[tuple[dict[str, Any], Hashable, Hashable]]:
    """Yield records with their values of both columns; for a column that is not chosen, a running number."""
    seen: Counter[Hashable] = Counter()
    for record in _records(store, choice):
        row, column = (value_of(record, name) if name else None for name in (choice.rows, choice.columns))
        if choice.rows and choice.columns:
            yield record, row, column
            continue
        value = row if choice.rows else column
        yield (record, value, seen[value]) if choice.rows else (record, seen[value], value)
        seen[value] += 1


def _position(record: Mapping[str, Any]) -> int:
    positions = record["row_indices"]
    return int(positions[0]) if positions else 0


_GAP, _MARGIN, _PADDING = 8, 16, 6
_LINE = round(contact_sheet.DETAIL_SIZE * contact_sheet.LEADING)
_NAME_LINES, _CAPTION_LINES = 3, 2
_ROW_NAMES = 150  # as wide as names of rows may be


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A clip in its cell. frames: RGB (T, H, W, 3), small. fps: by which it plays with others."""

    frames: Frames
    fps: float
    row: int
    column: int
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPicture:
    """Clips in rows and columns. row_names, column_names: next to them, [] for none."""

    tiles: Sequence[Tile]
    row_names: Sequence[str] = ()
    column_names: Sequence[str] = ()

    @property
    def fps(self) -> float:
        return max(tile.fps for tile in self.tiles)

    @property
    def num_frames(self) -> int:
        """As many as the longest clip takes; the others wait at their end."""
        return max(1, round(max(len(tile.frames) / tile.fps for tile in self.tiles) * self.fps))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, even ones: videos are stored in blocks of two."""
        columns = max(tile.column for tile in self.tiles) + 1
        rows = max(tile.row for tile in self.tiles) + 1
        width, height = self._left + columns * (self._cell[0] + _GAP) + _MARGIN, rows * (self._cell[1] + _GAP)
        return width + width % 2, (height + self._top + _MARGIN) // 2 * 2

    def frames(self) -> Iterator[Frames]:
        """Yield a picture for each moment."""
        still, places = self._still(), self._places()
        for number in range(self.num_frames):
            picture = still.copy()
            for tile, (left, top) in zip(self.tiles, places, strict=True):
                frame = tile.frames[min(int(number / self.fps * tile.fps + 1e-6), len(tile.frames) - 1)]
                height, width = frame.shape[:2]
                picture[top : top + height, left : left + width] = frame
            yield picture

    def _places(self) -> list[tuple[int, int]]:
        """Return where each clip's own left and top are: in the middle of its cell."""
        most_wide, most_high = self._tile
        places = []
        for tile in self.tiles:
            (left, top), (height, width) = self._corner(tile), tile.frames.shape[1:3]
            places.append((left + (most_wide - width) // 2, top + (most_high - height) // 2))
        return places

    @property
    def _tile(self) -> tuple[int, int]:
        return max(t.frames.shape[2] for t in self.tiles), max(t.frames.shape[1] for t in self.tiles)

    @property
    def _cell(self) -> tuple[int, int]:
        has_captions = any(tile.caption for tile in self.tiles)
        below = _CAPTION_LINES * _LINE + 2 * _PADDING if has_captions else 0
        return self._tile[0], self._tile[1] + below

    @property
    def _left(self) -> int:
        return _MARGIN + (_ROW_NAMES + _PADDING if self.row_names else 0)

    @property
    def _top(self) -> int:
        width = self._tile[0]
        lines = max((len(_folded(name, width, _NAME_LINES)) for name in self.column_names), default=0)
        return _MARGIN + (lines * _LINE + _PADDING if lines else 0)

    def _corner(self, tile: Tile) -> tuple[int, int]:
        width, height = self._cell
        return self._left + tile.column * (width + _GAP), self._top + tile.row * (height + _GAP)

    def _still(self) -> Frames:
        """Return all that does not move."""
        image = Image.new("RGB", self.size, contact_sheet.BACKGROUND)
        draw = ImageDraw.Draw(image)
        width, height = self._cell
        for tile in self.tiles:
            left, top = self._corner(tile)
            image.paste(contact_sheet.CARD, (left, top, left + width, top + height))
            for number, text in enumerate(tile.caption.split("\n")[:_CAPTION_LINES]):
                at = left + _PADDING, top + self._tile[1] + _PADDING + number * _LINE
                _write(draw, at, text, width=width - 2 * _PADDING, is_title=number == 0, max_lines=1)
        for row, name in enumerate(self.row_names):
            _write(draw, (_MARGIN, self._top + row * (height + _GAP) + _PADDING), name, width=_ROW_NAMES)
        for column, name in enumerate(self.column_names):
            _write(draw, (self._left + column * (width + _GAP), _MARGIN), name, width=width)
        return np.asarray(image).copy()


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    *,
    width: int,
    is_title: bool = True,
    max_lines: int = _NAME_LINES,
) -> None:
    """Write a text, folded; nothing of one that no font here has."""
    colour = contact_sheet.TITLE_COLOUR if is_title else contact_sheet.DETAIL_COLOUR
    for number, line in enumerate(_folded(text, width, max_lines)):
        draw_line(draw, (at[0], at[1] + number * _LINE), line, size=contact_sheet.DETAIL_SIZE, fill=colour)


@lru_cache(maxsize=1000)
def _folded(text: str, width: int, max_lines: int) -> tuple[str, ...]:
    if not runs_of(text.strip(), contact_sheet.DETAIL_SIZE):
        return ()
    return tuple(contact_sheet.fold(text, contact_sheet.DETAIL_SIZE, width=width, max_lines=max_lines))
