"""Modules, and what they and their classes define, as texts name them with dots."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools.house.house import Finding, House
from tools.house.prose import said_wrongly
from tools.house.symbols import defined, has_attribute, has_name

_MODULE = re.compile(r"(?<![\w/.:@-])(?:framefleet|pipeline|cluster|jobs|tests)(?:\.[A-Za-z_]\w*)+(?![\w/])")
_MEMBER = re.compile(r"`(?P<owner>[A-Za-z_]\w*)\.(?P<name>[A-Za-z_]\w*)(?:\(.*?\))?`")
_IMPORT = re.compile(r"^\s*from (?P<module>framefleet[\w.]*) import (?P<names>[\w, ]+)$", re.MULTILINE)


def lost_modules(house: House) -> Iterator[Finding]:
    """Yield dotted names, as `cluster.driver.lock`, whose module or name is gone."""

    def problem(_path: str, match: re.Match[str]) -> str | None:
        is_there = match[0].endswith((".py", ".md")) or _resolves(house, match[0])
        return None if is_there else f"{match[0]} does not exist"

    return said_wrongly(house, _MODULE, problem)


def lost_imports(house: House) -> Iterator[Finding]:
    """Yield imports in documents of what is not there."""

    def problem(_path: str, match: re.Match[str]) -> str | None:
        names = [f"{match['module']}.{name.split()[0]}" for name in match["names"].split(",")]
        lost = [name for name in names if not _resolves(house, name)]
        return f"{lost[0]} does not exist" if lost else None

    return said_wrongly(house, _IMPORT, problem)


def lost_members(house: House) -> Iterator[Finding]:
    """Yield `Class.attribute`, and `module.NAME`, of a class or module of ours that has none such."""
    classes, modules = house.classes, _names_by_module(house)

    def problem(_path: str, match: re.Match[str]) -> str | None:
        owner, name = match["owner"], match["name"]
        if owner in classes:
            is_lost = not has_attribute(house, classes[owner], name)
        else:  # a lower name behind a dot is more often a value's than a module's
            is_lost = owner in modules and name[0].isupper() and name not in modules[owner]
        return f"{owner} has no {name}" if is_lost else None

    return said_wrongly(house, _MEMBER, problem)


def _names_by_module(house: House) -> dict[str, set[str]]:
    """Return what modules define, by the last part of their names."""
    found: dict[str, set[str]] = {}
    for path, tree in house.trees.items():
        name = path.removesuffix(".py").removesuffix("/__init__").rpartition("/")[2]
        if name != "framefleet":  # its names come from elsewhere
            found.setdefault(name, set()).update(defined(tree.body))
    return found


def _resolves(house: House, dotted: str) -> bool:
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        stem, rest = "/".join(parts[:length]), ".".join(parts[length:])
        for place in (f"{stem}.py", f"{stem}/__init__.py"):
            if place in house.places:
                return not rest or has_name(house, place, rest)
    return False
