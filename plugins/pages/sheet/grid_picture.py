"""In: small clips and where they stand. Out: pictures of all, one for each moment, with their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.plugins.pictures import contact_sheet
from framefleet.plugins.pictures.lettering import draw_line, runs_of

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
