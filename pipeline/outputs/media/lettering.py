"""In: a line of text in any script. Out: the same on a picture, each part of it in a font that has it."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import ImageDraw, features

from framefleet.pipeline.outputs.media.fonts import Font, font_with, opened

MAX_LINE_LENGTH = 2000  # characters of a line: more fit no picture
_PICTURE, _JOINER = "\ufe0f", "\u200d"  # what is before it is an emoji; what is around it is one sign
_CHECKED_SIZE = 16
# Controls, halves of characters, those of no standard, and emoji: a text reads alike without them.
_WITHOUT_MEANING = ("Cc", "Cf", "Cn", "Co", "Cs", "So", "Sk")
INSTALL = "install fonts for them, as `apt-get install fonts-noto-core` does"

Colour = tuple[int, int, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """Characters that stand together in one font."""

    text: str
    font: Font
    language: str | None  # by which a Chinese sign is drawn as Japanese write it, or the other way round

    @property
    def length(self) -> float:
        return float(self.font.getlength(self.text, language=self.language))


def runs_of(text: str, size: int) -> list[Run]:
    """Return the parts of a line; [] where it has none, or a letter that no font here has."""
    paths, language = _paths(text[:MAX_LINE_LENGTH]), _language(text)
    runs: list[Run] = []
    for path, part in _joined(paths):
        font = opened(path, size)
        if font is None:
            return []
        runs.append(Run(part, font, language if path else None))  # Pillow lays its own out without
    return runs


def length_of(text: str, size: int) -> float:
    """Return how wide a line is, in pixels."""
    return sum(run.length for run in runs_of(text, size))


def draw_line(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    *,
    size: int,
    fill: tuple[int, int, int] | int,
) -> None:
    """Draw a line of text, all of it on one base line. at: its left end and its top."""
    left, base = at[0], at[1] + size
    for run in runs_of(text, size):
        draw.text((left, base), run.text, fill=fill, font=run.font, anchor="ls", language=run.language)
        left += run.length


def is_within_sign(text: str, place: int) -> bool:
    """Tell whether a line must not be broken there: in the middle of a family, a flag, an accent."""
    return 0 < place < len(text) and (_goes_on(text[place]) or text[place - 1] == _JOINER)


def warn_of_missing_fonts(texts: Iterable[str]) -> None:
    """Say once how many of these no font here can draw, and what to install."""
    lost = [text for text in texts if text.strip() and not runs_of(text, _CHECKED_SIZE)]
    if lost:
        log.warning(
            "no font of this machine has the letters of %d titles, as %r: the pictures leave them out; %s",
            len(lost),
            lost[0][:80],
            INSTALL,
        )


def _paths(text: str) -> list[tuple[str | None, str]]:
    """Return each character with its font, without those of no look; [] where one that matters has none."""
    found: list[tuple[str | None, str]] = []
    for place, character in enumerate(text):
        if found and _goes_on(character):
            found.append((found[-1][0], character))
            continue
        font = font_with(character, is_emoji=text[place + 1 : place + 2] == _PICTURE)
        if font is not None:
            found.append((font[0], character))
        elif unicodedata.category(character) not in _WITHOUT_MEANING:
            return []
    return found


def _joined(paths: Iterable[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
    """Return stretches of characters of one font; a space goes with what is before it."""
    stretches: list[tuple[str | None, str]] = []
    for path, character in paths:
        if stretches and (stretches[-1][0] == path or character.isspace()):
            stretches[-1] = stretches[-1][0], stretches[-1][1] + character
        else:
            stretches.append((path, character))
    return stretches


def _goes_on(character: str) -> bool:
    """Tell whether a character belongs to the one before it: accents, colours of skin, what joins."""
    return unicodedata.category(character) in ("Mn", "Me", "Mc", "Cf", "Sk") and ord(character) > 0x2FF


def _language(text: str) -> str | None:
    """Return whose forms of Chinese signs a text wants; None where the drawing cannot choose."""
    if not features.check("raqm"):
        return None
    names = {unicodedata.name(character, "").partition(" ")[0] for character in set(text[:MAX_LINE_LENGTH])}
    if names & {"HIRAGANA", "KATAKANA"}:
        return "ja"
    return "ko" if "HANGUL" in names else "zh-Hans"
