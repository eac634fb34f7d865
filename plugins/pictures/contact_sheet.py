"""Draws one picture of many clips: three frames and the caption of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageOps

from framefleet.api.clips import Frames
from framefleet.plugins.pictures import lettering

BACKGROUND: lettering.Colour = (15, 17, 21)
CARD: lettering.Colour = (27, 30, 38)
TITLE_COLOUR: lettering.Colour = (238, 240, 245)
DETAIL_COLOUR: lettering.Colour = (140, 148, 165)

MARGIN = 20  # around the sheet and between cards
_PADDING = 14  # between a card's edge and its caption
GAP = 2  # between the frames of a clip
_SHOWN = 3  # frames of a clip, see `shown_of`
TITLE_SIZE, TITLE_LINES = 16, 2
DETAIL_SIZE = 13
LEADING = 1.45  # from line to line, in sizes of the letters


def contact_sheet(
    tiles: Iterable[tuple[Frames, str]], *, columns: int = 3, tile_width: int = 480
) -> Image.Image:
    """Return a picture with a card for each clip: its first, middle and last frame, and its caption below.

    tiles: frames (T, H, W, 3) and caption, taken one at a time. The caption's first line is its title, folded
    to at most two lines; further lines are small print. A line that no font here can draw (Chinese without a
    Chinese font) is left out rather than shown as boxes, so give row and seed a line of their own.
    """
    cell_width = (tile_width - GAP * (_SHOWN - 1)) // _SHOWN
    clips = [
        ([within(frames[index], cell_width) for index in shown_of(len(frames))], caption)
        for frames, caption in tiles
    ]
    cell_height = max((image.height for images, _ in clips for image in images), default=0)
    cards = [_card(images, caption, (tile_width, cell_height)) for images, caption in clips]
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(card.height for card in row) for row in rows]
    num_columns = max(1, min(columns, len(cards)))
    size = (MARGIN + num_columns * (tile_width + MARGIN), MARGIN + sum(heights) + MARGIN * len(rows))
    sheet = Image.new("RGB", size, BACKGROUND)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for place, card in enumerate(row):
            left = MARGIN + place * (tile_width + MARGIN)
            sheet.paste(CARD, (left, top, left + tile_width, top + height))  # as tall as its neighbours
            sheet.paste(card, (left, top))
        top += height + MARGIN
    return sheet


def shown_of(num_frames: int) -> list[int]:
    """Return which frames a sheet shows: the first, the middle and the last; fewer if there are fewer."""
    return sorted({0, num_frames // 2, num_frames - 1})


def within(frame: Frames, width: int) -> Image.Image:
    """Return a frame as large as fits into a square. frame: (H, W, 3), or (H, W, 4) with alpha."""
    image = Image.fromarray(frame).convert("RGB")
    return ImageOps.contain(image, (width, width), Image.Resampling.LANCZOS)


def _card(images: list[Image.Image], caption: str, strip_size: tuple[int, int]) -> Image.Image:
    width, strip_height = strip_size
    lines = list(_lines(caption, width - 2 * _PADDING))
    caption_height = sum(line.height for line in lines) + 2 * _PADDING if lines else 0
    card = Image.new("RGB", (width, strip_height + caption_height), CARD)
    # The frames stand side by side in the middle of the strip, which is black where they do not reach.
    card.paste((0, 0, 0), (0, 0, width, strip_height))
    left = (width - sum(image.width for image in images) - GAP * (len(images) - 1)) // 2
    for image in images:
        card.paste(image, (left, (strip_height - image.height) // 2))
        left += image.width + GAP
    draw = ImageDraw.Draw(card)
    top = strip_height + _PADDING
    for line in lines:
        lettering.draw_line(draw, (_PADDING, top), line.text, size=line.size, fill=line.colour)
        top += line.height
    return card


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    text: str
    size: int
    colour: lettering.Colour

    @property
    def height(self) -> int:
        return round(self.size * LEADING)


def _lines(caption: str, width: int) -> Iterator[_Line]:
    """Yield what can be drawn of the caption, folded to `width`."""
    for number, text in enumerate(caption.split("\n")):
        title = number == 0
        size, colour = (TITLE_SIZE, TITLE_COLOUR) if title else (DETAIL_SIZE, DETAIL_COLOUR)
        if lettering.runs_of(text.strip(), size):
            for folded in fold(text, size, width=width, max_lines=TITLE_LINES if title else 1):
                yield _Line(text=folded, size=size, colour=colour)


def fold(text: str, size: int, *, width: int, max_lines: int) -> Iterator[str]:
    """Yield lines no wider than `width`: broken at spaces, or anywhere in words too long and in Chinese."""
    rest = " ".join(text[: lettering.MAX_LINE_LENGTH].split())
    for number in range(1, max_lines + 1):
        fits = _num_fitting(rest, size, width)
        if fits == len(rest):
            yield rest
            return
        if number == max_lines:
            shorter = _num_fitting(rest, size, width - lettering.length_of("...", size))
            yield f"{rest[: max(shorter, 1)].rstrip()}..."
            return
        space = rest.rfind(" ", 1, fits + 1)
        # A space far to the left is one between Chinese words: breaking there would waste the line.
        end = space if space > fits // 2 else max(fits, 1)
        yield rest[:end].rstrip()
        rest = rest[end:].lstrip()


def _num_fitting(text: str, size: int, width: float) -> int:
    """Return how many characters of `text` fit into `width`, without a half of a sign."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if lettering.length_of(text[:middle], size) <= width else (low, middle - 1)
    while lettering.is_within_sign(text, low):
        low -= 1
    return low
