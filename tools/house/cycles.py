"""Cycles of files: which file imports which, at any depth of the code, until one is back where it began."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from tools.house.house import PACKAGES, Finding, House

# Imports inside a function that close a cycle, to be broken; the list only gets shorter.
KNOWN: dict[str, str] = {}


def import_cycles(house: House) -> Iterator[Finding]:
    """Yield cycles, and what `KNOWN` lists for no reason. Imports for type checkers alone close none."""
    graph = {path: _imported(house, path) for path in house.trees if path.startswith(PACKAGES)}
    for path, other in KNOWN.items():
        if path in graph:
            if not _reaches(graph, other, path) or other not in graph[path]:
                problem = f"KNOWN lists {path} importing {other}, which closes no cycle any more"
                yield Finding("tools/house/cycles.py", 1, problem)
            graph[path].pop(other, None)
    while cycle := _cycle(graph):
        first, line = cycle[0], graph[cycle[0]].pop(cycle[1])
        yield Finding(first, line, f"a cycle of imports: {' -> '.join(cycle)}")


def _cycle(graph: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return files of which each imports the next, the last one the first again; of no cycle, nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1][::-1]  # each is imported by the next
        return found
    return []


def _reaches(graph: Mapping[str, Mapping[str, int]], start: str, end: str) -> bool:
    seen, ahead = {start}, [start]
    while ahead:
        new = {*graph.get(ahead.pop(), {})} - seen
        seen |= new
        ahead += new
    return end in seen


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
