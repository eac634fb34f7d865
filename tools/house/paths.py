"""Files and folders that texts name: each stands, seen from the root, the text's own folder, or a package."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from tools.house.house import PACKAGES, Finding, House
from tools.house.prose import said_wrongly
from tools.house.symbols import has_name

# A file by its ending (and what it defines, as `guards/redaction.py:public_text`); what lies below a top
# folder; or a folder by its slash. Behind an address, a variable or a home folder no name is one of ours.
_PATH = re.compile(
    r"(?<![\w/.:@~$<>{}*…\\-])(?P<up>(?:\.\./)+)?"
    r"(?:(?P<file>[\w*-]+(?:/[\w.*-]+)*\.(?:py|md))(?::(?P<name>[A-Za-z_][\w.]*\w))?(?![\w/])"
    r"|(?P<below>(?:docs|tests|framefleet|pipeline|cluster|jobs|plugins)/[\w.*/-]*[\w*/])"
    r"|(?P<folder>(?:[\w*-]+/)+)(?=[\s`,.;:)]|$))",
    re.MULTILINE,
)
_DOCUMENT = re.compile(r"(?<![\w/])docs/\w+\.md")
_USERS_OWN = "my_"  # `my_recipes.py` is the reader's
_PLACEHOLDER = re.compile(r"\b[A-Z]+/")  # `jobs/NAME/command.py` is any of them


def lost_paths(house: House) -> Iterator[Finding]:
    """Yield files and folders that are gone, and names that their files do not define."""

    def problem(path: str, match: re.Match[str]) -> str | None:
        named = match["file"] or match["below"] or match["folder"]
        if found := _find(house, path, (match["up"] or "") + named.rstrip("/")):
            has_it = not match["name"] or has_name(house, found, match["name"])
            return None if has_it else f"{found} defines no {match['name']}"
        if _is_foreign(house, match, named) or (match["folder"] and _is_written_by_code(house, named)):
            return None
        return f"{named} does not exist"

    return said_wrongly(house, _PATH, problem)


def lost_documents(house: House) -> Iterator[Finding]:
    """Yield pages that messages send their readers to."""

    def problem(_path: str, match: re.Match[str]) -> str | None:
        return None if match[0] in house.places else f"{match[0]} does not exist"

    return said_wrongly(house, _DOCUMENT, problem, in_messages=True)


def _is_foreign(house: House, match: re.Match[str], named: str) -> bool:
    """Say whether it is a library's, of a project that the line has named before, or the reader's own."""
    line = match.string[: match.start()].rpartition("\n")[2]
    library = re.compile(rf'^ *"{re.escape(named.partition("/")[0])}[>\[]', re.MULTILINE)
    is_library = library.search(house.texts.get("pyproject.toml", "")) is not None
    return is_library or "github.com/" in line or named.startswith(_USERS_OWN)


def _find(house: House, path: str, named: str) -> str | None:
    """Return what a name in a file stands for, as a path from the root."""
    parents = [*map(str, PurePosixPath(path).parents)]
    bases = parents[:1] if named.startswith("../") else [*parents, "docs", *PACKAGES]
    for base in bases:
        place = posixpath.normpath(_PLACEHOLDER.sub("*/", f"{base}/{named}"))
        if place in house.places:
            return place
        if "*" in place and (found := next((one for one in house.places if fnmatchcase(one, place)), None)):
            return found
    return None


def _is_written_by_code(house: House, named: str) -> bool:
    """Say whether the code makes it, as an output's `clips/`: then its name is a text in the code."""
    first = re.escape(named.partition("/")[0])
    pattern = re.compile(rf"[\"'/]{first}[\"'/]")
    return any(pattern.search(text) for path, text in house.texts.items() if path.endswith(".py"))
