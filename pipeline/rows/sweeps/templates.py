"""From texts with {names} and the values of these to whole texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

# {{name}} is {name} as it stands; all other brackets are text, as in a prompt that is JSON.
_NAME = re.compile(r"\{\{(\w+)\}\}|\{([^\W\d]\w*)\}")
_REMEMBERED = 4096


def names_in(texts: Iterable[str | None]) -> set[str]:
    """Return the names that the texts use."""
    return {name for text in texts if text and "{" in text for _, name in _parts(text) if name}


def is_template(texts: Iterable[str | None]) -> bool:
    """Tell whether any text is not as it is rendered."""
    return any(text and "{" in text and len(_parts(text)) > 1 for text in texts)


def filled(texts: list[str | None], words: Mapping[str, list[Any]]) -> list[str | None]:
    """Return each text with the words of its row; None where one of these is null.

    words: by name, one for each text.
    """
    return [_fill(text, words, row) if text and "{" in text else text for row, text in enumerate(texts)]


def _fill(text: str, words: Mapping[str, list[Any]], row: int) -> str | None:
    said: list[str] = []
    for literal, name in _parts(text):
        said.append(literal)
        if name:
            if (word := words[name][row]) is None:
                return None
            said.append(str(word))
    return "".join(said)


@lru_cache(_REMEMBERED)
def _parts(text: str) -> tuple[tuple[str, str | None], ...]:
    """Return (text before, name after it) of each part; the last has no name."""
    parts: list[tuple[str, str | None]] = []
    at = 0
    for found in _NAME.finditer(text):
        escaped = "{" + found[1] + "}" if found[1] else ""
        parts.append((text[at : found.start()] + escaped, found[2]))
        at = found.end()
    return (*parts, (text[at:], None))
