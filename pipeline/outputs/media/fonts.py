"""In: a line of text. Out: a font of this machine that can draw it, if there is one.

Pillow brings one font, for Latin letters. Chinese and others need a font of the system's.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache

from PIL import ImageFont

# What fontconfig is asked for, in this order, and where fonts lie on systems without it.
_PATTERNS = (":lang=zh-cn:sans", ":lang=ja:sans", ":lang=ko:sans", "sans")
USUAL_PATHS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/System/Library/Fonts/PingFang.ttc",
    "/System/Library/Fonts/STHeiti Light.ttc",
    "C:/Windows/Fonts/msyh.ttc",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
)
NO_CHARACTER = "\U0010ffff"  # a font draws it as it draws all that it lacks

_CHECKED_SIZE = 16  # what a font can draw does not depend on it
INSTALL = "`apt-get install fonts-noto-cjk` or `dnf install google-noto-sans-cjk-fonts` brings Chinese ones"

log = logging.getLogger(__name__)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_for(text: str, size: int) -> tuple[Font, str] | None:
    """Return a font, and what it can draw of `text`: all but emoji and the like. None if no font here can."""
    for path in font_paths():
        font = _open(path, size)
        if font is not None and all(_has(path, character) for character in text if _matters(character)):
            return font, "".join(character for character in text if _has(path, character))
    return None


def warn_of_missing_fonts(texts: Iterable[str]) -> None:
    """Say once how many of these no font here can draw, and what to install."""
    lost = [text for text in texts if font_for(text, _CHECKED_SIZE) is None]
    if lost:
        log.warning(
            "no font of this machine has the letters of %d titles, as %r: the pictures leave them out; %s",
            len(lost),
            lost[0],
            INSTALL,
        )


@cache
def font_paths() -> tuple[str | None, ...]:
    """Return the fonts to try; None is Pillow's own, which looks the same everywhere."""
    found = (path for path in (*map(_ask_fontconfig, _PATTERNS), *USUAL_PATHS) if path)
    return (None, *dict.fromkeys(found))


def _ask_fontconfig(pattern: str) -> str:
    if not shutil.which("fc-match"):
        return ""
    command = ["fc-match", "--format=%{file}", pattern]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()


@cache
def _open(path: str | None, size: int) -> Font | None:
    try:
        return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    except OSError:  # not there, or of a kind that FreeType does not read
        return None


@lru_cache(maxsize=20_000)
def _has(path: str | None, character: str) -> bool:
    if character.isspace():
        return True
    font = _open(path, _CHECKED_SIZE)
    return font is not None and _picture(font, character) != _picture(font, NO_CHARACTER)


def _picture(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def _matters(character: str) -> bool:
    """Tell whether the text would read differently without it: true but for emoji and what joins them."""
    return unicodedata.category(character) not in ("So", "Sk", "Cf", "Cn") and character != "\ufe0f"
