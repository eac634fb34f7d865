"""Conflict markers of a merge that was committed half done."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.house.house import Finding, House
from tools.house.prose import line_of

_MARKER = re.compile(r"^(?:<{7} .*|\|{7} .*|={7}|>{7} .*)$", re.MULTILINE)


def conflict_markers(house: House) -> Iterator[Finding]:
    for path, text in house.texts.items():
        for match in _MARKER.finditer(text):
            yield Finding(path, line_of(text, match.start()), f"conflict marker {match[0]!r}")
