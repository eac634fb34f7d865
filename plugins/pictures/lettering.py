"""Draws a line of text in any script on a picture, each part in a font that has its characters.

The fonts for the most common scripts are the same on every machine: Pillow has Latin letters,
`notojp_matplotlib` has Noto Sans CJK (Chinese, Japanese, Korean, symbols), and Noto Emoji is next to this
file. Other scripts need one of the system's fonts.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageDraw, ImageFont, features

MAX_LINE_LENGTH = 2000  # characters of a line: more fit no picture
_PICTURE, _JOINER = "\ufe0f", "\u200d"  # what is before it is an emoji; what is around it is one sign
# Controls, halves of characters, those of no standard, and emoji: a text reads alike without them.
_WITHOUT_MEANING = ("Cc", "Cf", "Cn", "Co", "Cs", "So", "Sk")
INSTALL = "install fonts for them, e.g. with `apt-get install fonts-noto-core`"
_OWN = None  # Pillow's
EMOJI = Path(__file__).with_name("noto_emoji") / "NotoEmoji-Regular.woff2"
_CJK_PACKAGE, _CJK_FILE = "notojp_matplotlib", "fonts/NotoSansCJKjp-Regular.otf"  # of all four languages
# Where a font lies that holds much, on systems without fontconfig.
_USUAL_PATH = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
NO_CHARACTER = "\U0010ffff"  # a font draws it as it draws all that it lacks
_CHECKED_SIZE = 16  # what a font has does not depend on it

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TextRun:
    text: str
    font: Font
    language: str | None  # by which a Chinese sign is drawn as Japanese write it, or the other way round

    @property
    def length(self) -> float:
        return float(self.font.getlength(self.text, language=self.language))


def runs_of(text: str, size: int) -> list[TextRun]:
    """Return the parts of a line; [] where it has none, or a letter that no font here has."""
    paths, language = _paths(text[:MAX_LINE_LENGTH]), _language(text)
    runs: list[TextRun] = []
    for path, part in _joined(paths):
        font = opened(path, size)
        if font is None:
            return []
        runs.append(TextRun(part, font, language if path else None))  # Pillow lays its own out without
    return runs


def length_of(text: str, size: int) -> float:
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
    """Tell whether a line break there would split a sign, such as a family, a flag or an accented letter."""
    return 0 < place < len(text) and (_goes_on(text[place]) or text[place - 1] == _JOINER)


def warn_of_missing_fonts(texts: Iterable[str]) -> None:
    """Warn once how many of these texts no font here can draw, and what to install."""
    lost = [text for text in texts if text.strip() and not runs_of(text, _CHECKED_SIZE)]
    if lost:
        log.warning(
            "titles with letters that no font of this machine has: %d, e.g. %r; pictures leave these out; %s",
            len(lost),
            lost[0][:80],
            INSTALL,
        )


def _paths(text: str) -> list[tuple[str | None, str]]:
    """Return each character with its font, without those of no look; [] where one that matters has none."""
    drawn: list[tuple[str | None, str]] = []
    for place, character in enumerate(text):
        if drawn and _goes_on(character):
            drawn.append((drawn[-1][0], character))
            continue
        font = font_with(character, is_emoji=text[place + 1 : place + 2] == _PICTURE)
        if font is not None:
            drawn.append((font[0], character))
        elif unicodedata.category(character) not in _WITHOUT_MEANING:
            return []
    return drawn


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


def font_with(character: str, *, is_emoji: bool = False) -> tuple[str | None] | None:
    """Return the place of a font that has the character, in a tuple, for Pillow's own has none; or None.

    is_emoji: rather as a picture than as a sign of the text.
    """
    paths = (str(EMOJI), *font_paths()) if is_emoji else font_paths()
    for path in paths:
        if has(path, character):
            return (path,)
    font = of_system(character)
    return (font,) if font else None


@cache
def font_paths() -> tuple[str | None, ...]:
    return (_OWN, *_cjk_paths(), str(EMOJI), _USUAL_PATH)


def _cjk_paths() -> tuple[str, ...]:
    spec = find_spec(_CJK_PACKAGE)  # not imported: it would set up matplotlib
    places = spec.submodule_search_locations if spec else None
    return tuple(str(Path(place) / _CJK_FILE) for place in places or ())


def of_system(character: str) -> str:
    """Return the font that fontconfig has for a character; "" without one, or without fontconfig."""
    path = _ask_fontconfig(character)
    return path if path and has(path, character) else ""


@lru_cache(maxsize=1000)
def _ask_fontconfig(character: str) -> str:
    """Return its best answer: another font where none has the character."""
    if not shutil.which("fc-match"):
        return ""
    command = ["fc-match", "--format=%{file}", f":charset={ord(character):x}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()


@cache
def opened(path: str | None, size: int) -> Font | None:
    """Return a font; None where it is not there, or of a kind that this FreeType does not read."""
    try:
        return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    except OSError:
        return None


@lru_cache(maxsize=20_000)
def has(path: str | None, character: str) -> bool:
    """Tell whether a font has a character: it draws it otherwise than what it lacks."""
    if character.isspace():
        return True
    font = opened(path, _CHECKED_SIZE)
    return font is not None and _picture(font, character) != _picture(font, NO_CHARACTER)


def _picture(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
