"""Cycles of files: which file imports which, at any depth of the code, until one is back where it began."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from tools.house.house import PACKAGES, Finding, House
from tools.house.shape import circles, imports

MAX_FILES = 5  # that import each other, types counted: none of them can be read without all others


def import_cycles(house: House) -> Iterator[Finding]:
    """Yield cycles. Imports for type checkers alone close none."""
    graph = {path: _imported(house, path) for path in house.trees if path.startswith(PACKAGES)}
    while cycle := _cycle(graph):
        first, line = cycle[0], graph[cycle[0]].pop(cycle[1])
        yield Finding(first, line, f"a cycle of imports: {' -> '.join(cycle)}")


def wide_circles(house: House) -> Iterator[Finding]:
    """Yield circles of many files, counting imports for type checkers and those within functions."""
    graph = {path: imports(house, path) for path in house.trees if path.startswith(PACKAGES)}
    for circle in map(sorted, circles(graph)):
        if len(circle) > MAX_FILES:
            yield Finding(circle[0], 1, f"{len(circle)} files import each other: {', '.join(circle)}")


def _cycle(graph: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return files of which each imports the next, the last one the first again; of no cycle, nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]  # each is imported by the next
    return []


def _imported(house: House, path: str) -> dict[str, int]:
    """Return the files that a file imports, by the line of it."""
    found: dict[str, int] = {}
    for node in _running(house.trees[path]):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            stem = name.removeprefix("framefleet.").replace(".", "/")
            for place in (f"{stem}.py", f"{stem.rpartition('/')[0]}.py"):
                if place in house.trees and place != path:
                    found.setdefault(place, node.lineno)
                    break
    return found


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _running(child)
