"""The shape of the house: lines, what plugins name of the core, hooks of the doors, the largest circle."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping

from tools.house.house import PACKAGES, House
from tools.house.tests_at_doors import tests_at_doors

CORE = PACKAGES[:-1]  # without plugins
_HELPERS = ("typing", "framefleet.lazy_names")  # of framefleet/api
# The classes that plugins subclass, or fill in, each with the file where it stands.
DOORS = {
    "Plugin": "pipeline/plugin.py",
    "Placer": "pipeline/model/device_placement.py",
    "FileStep": "pipeline/outputs/file_step.py",
    "SectionFacts": "jobs/job/section.py",
    "JobRunner": "jobs/doors.py",
    "JobKind": "jobs/doors.py",
    "Listener": "jobs/doors.py",
}


def shape(house: House) -> Iterator[str]:
    """Yield a line for each figure."""
    for name, folders in (("core", CORE), ("plugins", ("plugins",))):
        paths = [path for path in house.trees if path.partition("/")[0] in folders]
        num_lines = sum(house.texts[path].count("\n") for path in paths)
        share = sum(_num_import_lines(house.trees[path]) for path in paths) / max(1, num_lines)
        yield f"{name}: {len(paths)} files, {num_lines:,} lines, {share:.1%} of them imports"
    graph = {path: imports(house, path) for path in house.trees if path.startswith(PACKAGES)}
    of_core = {to for path, imported in graph.items() if path.startswith("plugins/") for to in imported}
    yield f"core modules that plugins name: {sum(to.startswith(CORE) for to in of_core)}"
    api = [tree for path, tree in house.trees.items() if path.startswith("framefleet/api/")]
    imported = (node for tree in api for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    num_names = sum(len(node.names) for node in imported if node.module not in _HELPERS)
    yield f"names of framefleet.api, which plugins import: {num_names}"
    of_plugins = [to for path in graph if path.startswith(CORE) for to in graph[path] if "plugins/" in to]
    yield f"imports from core to plugins: {len(of_plugins)}"
    yield f"the largest circle of imports, types counted: {max(map(len, circles(graph)), default=0)} files"
    users = hook_users(house)
    yield f"hooks of {len(DOORS)} doors: {len(users)}"
    for title, number in (("by no plugin", 0), ("by one plugin", 1)):
        used = [hook for hook, plugins in users.items() if len(plugins) == number]
        yield f"hooks used {title}: {len(used)}: {', '.join(used)}"
    yield from tests_at_doors(house)


def imports(house: House, path: str) -> set[str]:
    """Return the files of the house that a file imports at any depth, also for type checkers alone."""
    places = (place for place in house.trees if place.startswith(PACKAGES))
    modules = {place.removesuffix(".py").replace("/", "."): place for place in places}
    found = set[str]()
    for node in ast.walk(house.trees[path]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("framefleet."):
            module = (node.module or "").removeprefix("framefleet.")
            names = (module, *(f"{module}.{alias.name}" for alias in node.names))
            found |= {modules[name] for name in names if name in modules}
    return found - {path}


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the files that import each other, at some depth: the strongly connected components."""
    below = {path: _reached(graph, path) for path in graph}
    left, found = set(graph), list[set[str]]()
    while left:
        path = left.pop()
        circle = {other for other in below[path] if path in below.get(other, ())}
        if circle:
            found.append(circle | {path})
            left -= circle
    return found


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    reached, waiting = set[str](), [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - reached
        reached |= new
        waiting += new
    return reached


def hook_users(house: House) -> dict[str, set[str]]:
    """Return the plugins that fill in each hook, as `Door.name`: what a subclass or a call gives a value."""
    users: dict[str, set[str]] = {}
    for door, path in DOORS.items():
        (node,) = (n for n in house.trees[path].body if isinstance(n, ast.ClassDef) and n.name == door)
        users |= {f"{door}.{name}": set() for name in _members(node) if not name.startswith("_")}
    bases = _bases(house)
    for path, tree in house.trees.items():
        plugin = path.split("/")[1] if path.startswith("plugins/") else None
        for node in ast.walk(tree) if plugin else ():
            given: dict[str, set[str]] = defaultdict(set)
            if isinstance(node, ast.ClassDef):
                for door in DOORS.keys() & _reached(bases, node.name):
                    given[door] |= _members(node)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DOORS:
                given[node.func.id] |= {keyword.arg for keyword in node.keywords if keyword.arg}
            for hook in (f"{door}.{name}" for door, names in given.items() for name in names):
                if hook in users:
                    users[hook].add(str(plugin))
    return users


def _members(node: ast.ClassDef) -> set[str]:
    names = set[str]()
    for one in node.body:
        match one:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return names


def _bases(house: House) -> dict[str, set[str]]:
    bases: dict[str, set[str]] = defaultdict(set)
    for tree in house.trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] |= {ast.unparse(base).partition("[")[0] for base in node.bases}
    return bases


def _num_import_lines(tree: ast.Module) -> int:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes)
