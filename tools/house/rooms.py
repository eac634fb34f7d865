"""Rooms: each folder with four Python files or more has a README, short and with a picture; and docs/why/."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from tools.house.house import PACKAGES, Finding, House
from tools.house.prose import line_of

MIN_FILES = 4  # a smaller folder may be described by its parent
MAX_LINES = 60  # one screen: who needs more reads the code, or the record of a decision
MAX_WHY_LINES = 120
WHY = "docs/why"
# What `paths.py` does not look for: pages and tables of data that lie next to the code.
_OTHER_FILE = re.compile(r"(?<![\w/.*-])(?:[\w-]+/)*[\w-]+\.(?:js|css|toml)\b")


def poor_rooms(house: House) -> Iterator[Finding]:
    """Yield rooms without a README, and READMEs that are too long, draw nothing or name lost files."""
    for room, num_files in sorted(_rooms(house).items()):
        readme = f"{room}/README.md"
        if readme in house.texts:
            yield from _in_readme(house, room, readme)
        elif num_files >= MIN_FILES:
            problem = f"has {num_files} Python files and no README: draw what comes in and what goes out"
            yield Finding(readme, 1, problem)


def poor_records(house: House) -> Iterator[Finding]:
    """Yield pages about decisions that are too long, or that the index does not list."""
    index = house.texts.get(f"{WHY}/README.md", "")
    for path, text in house.texts.items():
        if path.startswith(f"{WHY}/"):
            if (num_lines := len(text.splitlines())) > MAX_WHY_LINES:
                yield Finding(path, 1, f"has {num_lines} lines, over {MAX_WHY_LINES}: split it by subject")
            if path != f"{WHY}/README.md" and f"({PurePosixPath(path).name})" not in index:
                yield Finding(path, 1, f"is not listed in {WHY}/README.md")


def _rooms(house: House) -> Counter[str]:
    """Return how many Python files each folder has itself, apart from `__init__.py`."""
    files = (PurePosixPath(path) for path in house.texts if path.endswith(".py"))
    return Counter(
        str(file.parent) for file in files if file.parts[0] in PACKAGES and file.name != "__init__.py"
    )


def _in_readme(house: House, room: str, readme: str) -> Iterator[Finding]:
    text = house.texts[readme]
    if (num_lines := len(text.splitlines())) > MAX_LINES:
        problem = f"has {num_lines} lines, over {MAX_LINES}: move decisions to {WHY}/"
        yield Finding(readme, 1, problem)
    if not re.search(r"^ {4}\S", text, re.MULTILINE):
        yield Finding(
            readme, 1, "has no picture: draw what comes in and what goes out, indented by four spaces"
        )
    names = {PurePosixPath(path).name for path in house.texts if path.startswith(f"{room}/")}
    for match in _OTHER_FILE.finditer(text):
        if PurePosixPath(match[0]).name not in names:
            yield Finding(readme, line_of(text, match.start()), f"{match[0]} does not exist in {room}/")
