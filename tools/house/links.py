"""Links of Markdown to files and headings of this repository."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator

from tools.house.house import Finding, House
from tools.house.prose import line_of

_LINK = re.compile(r"\]\((?P<target>[^()\s]+)\)")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def broken_links(house: House) -> Iterator[Finding]:
    for path, text in house.texts.items():
        if path.endswith(".md"):
            for match in _LINK.finditer(text):
                if problem := _problem(house, path, match["target"]):
                    yield Finding(path, line_of(text, match.start()), problem)


def _problem(house: House, path: str, target: str) -> str | None:
    if _ADDRESS.match(target):
        return None
    named, _, anchor = target.partition("#")
    place = posixpath.normpath(posixpath.join(posixpath.dirname(path), named)) if named else path
    if place not in house.places:
        return f"link to {target}: {place} does not exist"
    if anchor and anchor not in anchors(house.texts[place]):
        return f"link to {target}: {place} has no such heading"
    return None


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    found, seen = set(), Counter[str]()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found
