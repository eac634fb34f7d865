"""Which tests are near to what changed: `python -m tests.changed` prints their files, the nearest first.

Changed is what differs from where the branch left `origin/main`. Where that is this commit itself, or is not
there, it is what differs from the commit of the last full run (durations.py). The graph has all imports, also
those inside functions, and what is behind the commands and public names that a test uses.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import grimp
from typer.main import get_command

from framefleet.jobs.cli import command_line
from framefleet.lazy_names import homes
from tests.durations import FILE, last_full_run

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("framefleet", "tests", "tools")
# What decides how all tests run, and is not a module.
OF_ALL = {"pyproject.toml", "constraints.txt", "Makefile", "tests/conftest.py"}
# The public face imports everything, so that nothing is nearer through it.
FACE = "framefleet"
MOST = 20  # files of `make test-changed`: about a minute
# Of files that are equally near, those that take least go first.
QUICK = ("unit", "property", "simulator", "browser", "models", "cluster", "gpu", "periphery")
EVERYWHERE = 9  # the distance of a file that nothing says is near


def changed_files() -> set[str] | None:
    """Return the paths that differ; None where nothing says what they differ from."""
    try:
        head = _git("rev-parse", "HEAD")
        base = _git("merge-base", "HEAD", "origin/main")
        if base in ("", head) and not (own := _differing(head)):
            base = _git("rev-parse", "--verify", f"{last_full_run().commit}^{{commit}}")
        elif base in ("", head):
            return own
        return _differing(base) - {FILE} if base else None
    except OSError:  # there is no git
        return None


def _differing(base: str) -> set[str]:
    """Return what differs between a commit and the files here, new ones included."""
    paths = f"{_git('diff', '--name-only', base)}\n{_git('ls-files', '--others', '--exclude-standard')}"
    return {path for path in paths.split("\n") if path}


def nearest_tests(changed: Collection[str] | None) -> Mapping[str, int]:
    """Return test files and by how many imports they are away from what changed, the nearest first.

    A module of tests is as near as what it imports is: 0 for a test that changed itself or a helper of its
    own, 1 for one of what it imports of ours. A test is also as near as 1 to a file that is not a module if
    its text, or that of a helper, names it, and to each module if it reads the text of all. `EVERYWHERE`
    where what changed is unknown, or concerns all.
    """
    if changed is not None and not changed:
        return {}
    graph = _graph()
    tests = {name: _path(name) for name in graph.modules if ".test_" in name}
    distances: dict[str, int] = {}
    is_everywhere = changed is None or bool(OF_ALL & set(changed))
    for path in changed or ():
        if modules := _modules_of(path):
            distances = dict.fromkeys(_readers(), 1) | distances | dict.fromkeys(modules, 0)
        elif naming := list(_naming(path)):
            distances |= dict.fromkeys(naming, 1)
        elif not path.endswith((".md", ".py")):  # a Python file without a module is gone, or is a script
            is_everywhere = True
    near = dict.fromkeys(tests, EVERYWHERE) if is_everywhere else {}
    near |= {name: away for name, away in _spread(graph, distances).items() if name in tests}
    files = {path: near[name] for name, path in tests.items() if name in near}
    return dict(
        sorted(files.items(), key=lambda file: (file[1], QUICK.index(file[0].split("/")[1]), file[0]))
    )


def _spread(graph: grimp.ImportGraph, distances: dict[str, int]) -> dict[str, int]:
    """Return the distance of each module that imports, at any depth, one of those given."""
    queue = deque(sorted(distances, key=distances.__getitem__))
    nearest: dict[str, int] = {}
    waiting = dict(distances)
    while queue:
        module = queue.popleft()
        if module in nearest:
            continue
        nearest[module] = waiting[module]
        for importer in graph.find_modules_that_directly_import(module) - {FACE}:
            is_own = module.startswith("tests.") and importer.startswith("tests.")
            away = nearest[module] + (0 if is_own else 1)
            if away < waiting.get(importer, EVERYWHERE):
                waiting[importer] = away
                queue.appendleft(importer) if is_own else queue.append(importer)
    return nearest


def module_of(path: str) -> str:
    """Return the module of a file, or of the folder of one that is not Python."""
    name = path.removesuffix(".py") if path.endswith(".py") else path.rpartition("/")[0]
    name = name.removesuffix("/__init__").replace("/", ".")
    return name if name.split(".")[0] in PACKAGES else f"framefleet.{name}"


def _modules_of(path: str) -> set[str]:
    """Return the module of a file; of one that is not Python, those that lie next to it or above it."""
    graph, module = _graph(), module_of(path)
    if path.endswith(".py"):
        return {module} & graph.modules
    while module.count(".") and module not in graph.modules:
        module = module.rpartition(".")[0]
    return {module, *graph.find_children(module)} if module.count(".") else set()


def _naming(path: str) -> Iterator[str]:
    """Yield modules of tests and tools whose text names a file, or the folder that it is in."""
    folder, _, file = path.rpartition("/")
    words = {file, folder} - {"", "docs"}
    if folder:
        words.discard("README.md")  # each folder has one
    for module in _graph().modules:
        if module.startswith(("tests.", "tools.")) and any(word in _text(module) for word in words):
            yield module


@cache
def _readers() -> list[str]:
    """Return the unit tests that read the text of all modules."""
    tests = (module for module in _graph().modules if ".unit.test_" in module)
    return [test for test in tests if re.search(r'glob\(.*\*\.py"', _text(test))]


@cache
def _text(module: str) -> str:
    file = ROOT / _path(module)
    file = file if file.is_file() else file.with_suffix("") / "__init__.py"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _path(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


@cache
def _graph() -> grimp.ImportGraph:
    """Return all imports, also by names in texts, and what is behind commands and public names of tests."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    files = {f"framefleet.{name}": module for name, module in homes("framefleet").items()}
    files |= {f'"{name}"': module for name, module in _commands(get_command(command_line()))}
    used = re.compile("|".join(rf"{re.escape(word)}(?!\w)" for word in files))
    for module in graph.modules:
        for place in re.findall(r'"(framefleet\.[\w.]+)[:"]', _text(module)):  # imported by its name
            if place in graph.modules:
                for imported in {place, *graph.find_descendants(place)} - {module}:
                    graph.add_import(importer=module, imported=imported)
        if module.startswith("tests."):
            names = _text(module)
            names += "".join(f" framefleet.{name}" for name in _imported(names))
            for word in set(used.findall(names)):
                graph.add_import(importer=module, imported=files[word])
    return graph


def _imported(text: str) -> list[str]:
    """Return the names that a text imports from the public face."""
    names = re.findall(r"^ *from framefleet import (\([^)]*\)|.*)$", text, re.MULTILINE)
    return re.findall(r"\w+", " ".join(names))


def _commands(group: Any) -> Iterator[tuple[str, str]]:
    """Yield the name of each command, and the module of its function."""
    for name, command in group.commands.items():
        if command.callback:
            yield name, command.callback.__module__
        yield from _commands(command) if hasattr(command, "commands") else ()


def _git(*arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else ""


def main() -> int:
    changed = changed_files()
    if changed is None:
        print("nothing says what changed: this is not a clone of git; use make test", file=sys.stderr)
        return 2
    near = nearest_tests(changed)
    chosen = list(near)[:MOST]
    print(*chosen, sep="\n")
    print(
        f"{len(changed)} files changed: {len(chosen)} of {len(near)} test files that import them",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
