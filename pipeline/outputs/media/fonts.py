"""In: a character. Out: a font that has it, the same on every machine for most of what people write.

Pillow brings Latin letters, `notojp_matplotlib` Noto Sans CJK (Chinese, Japanese, Korean, symbols), and Noto
Emoji lies next to this file. Other scripts need a font of the system's.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

_OWN = None  # Pillow's
EMOJI = Path(__file__).with_name("noto_emoji") / "NotoEmoji-Regular.woff2"
_CJK_PACKAGE, _CJK_FILE = "notojp_matplotlib", "fonts/NotoSansCJKjp-Regular.otf"  # of all four languages
# Where fonts lie that hold much, on systems without fontconfig.
USUAL_PATHS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/System/Library/Fonts/Supplemental/Arial Unicode.ttf",
    "/System/Library/Fonts/PingFang.ttc",
    "C:/Windows/Fonts/msyh.ttc",
    "C:/Windows/Fonts/segoeui.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
)
NO_CHARACTER = "\U0010ffff"  # a font draws it as it draws all that it lacks
_BLOCK = 0x80  # characters that one font has, as a rule, where it has any: one question to fontconfig
_CHECKED_SIZE = 16  # what a font has does not depend on it

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_with(character: str, *, is_emoji: bool = False) -> tuple[str | None] | None:
    """Return the place of a font that has the character, in a tuple, for Pillow's own has none; or None.

    is_emoji: rather as a picture than as a sign of the text.
    """
    paths = (str(EMOJI), *font_paths()) if is_emoji else font_paths()
    for path in paths:
        if has(path, character):
            return (path,)
    found = of_system(character)
    return (found,) if found else None


@cache
def font_paths() -> tuple[str | None, ...]:
    """Return the fonts to try, in this order."""
    return (_OWN, *_cjk_paths(), str(EMOJI), *(path for path in USUAL_PATHS if Path(path).exists()))


def _cjk_paths() -> tuple[str, ...]:
    spec = find_spec(_CJK_PACKAGE)  # not imported: it would set up matplotlib
    places = spec.submodule_search_locations if spec else None
    return tuple(str(Path(place) / _CJK_FILE) for place in places or ())


def of_system(character: str) -> str:
    """Return the font that fontconfig has for a character; "" without one, or without fontconfig."""
    near = _found_near(ord(character) // _BLOCK)
    for path in near:
        if has(path, character):
            return path
    if (path := _ask_fontconfig(character)) and has(path, character):
        near.append(path)
        return path
    return ""


@cache
def _found_near(block: int) -> list[str]:
    """Return the fonts that were found for characters of a block so far; it may be added to."""
    return []


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
