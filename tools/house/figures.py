"""The house in numbers: files, lines, arrows between siblings, cycles, names defined twice."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from tools.house.cycles import import_cycles
from tools.house.house import PACKAGES, House
from tools.house.twice import doubled


def figures(house: House) -> Iterator[str]:
    """Yield the lines of a report."""
    for package in PACKAGES:
        paths = [path for path in house.trees if path.startswith(f"{package}/")]
        num_lines = sum(house.texts[path].count("\n") for path in paths)
        yield f"{package}/: {len(paths)} files of Python, {num_lines:,} lines"
        per_folder = Counter(path.rpartition("/")[0] for path in paths)
        yield from (f"  {count:3} {folder}" for folder, count in sorted(per_folder.items()))
    for package in PACKAGES:
        arrows, num_siblings = arrows_between_siblings(house, package), len(siblings(house, package))
        yield f"{package}/: {sum(map(len, arrows.values()))} arrows between {num_siblings} siblings"
        yield from (f"  {name} -> {' '.join(sorted(to))}" for name, to in sorted(arrows.items()))
    yield f"{len(list(import_cycles(house)))} cycles of files"
    names = doubled(house)
    yield f"{len(names)} public names are defined in more than one file"
    yield from (f"  {name}: {', '.join(names[name])}" for name in sorted(names))


def siblings(house: House, package: str) -> set[str]:
    """Return the names of the files and folders of a package, besides its `__init__`."""
    paths = (path.split("/") for path in house.trees)
    return {parts[1].removesuffix(".py") for parts in paths if parts[0] == package} - {"__init__"}


def arrows_between_siblings(house: House, package: str) -> Mapping[str, set[str]]:
    """Return who imports whom; imports for type checkers alone do not count."""
    names, start = siblings(house, package), f"framefleet.{package}."
    found: dict[str, set[str]] = {}
    for path, tree in house.trees.items():
        parts = path.split("/")
        if parts[0] == package and (name := parts[1].removesuffix(".py")) in names:
            modules = (module for module in _imports(tree.body) if module.startswith(start))
            to = {module.removeprefix(start).split(".")[0] for module in modules} & names - {name}
            found.setdefault(name, set()).update(to)
    return {name: to for name, to in found.items() if to}


def _imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
        yield from _imports(ast.iter_child_nodes(node))
