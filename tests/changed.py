"""Which tests import what changed: `python -m tests.changed` prints their files, the nearest first.

Changed is what differs from where the branch left `origin/main`, or without one, from the last commit.
The graph has all imports, also those inside functions.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("framefleet", "tests", "tools")
PERIPHERY = (
    "tests.periphery",
    "tools",
    "framefleet.plugins.ports",
    "framefleet.plugins.train",
    "framefleet.plugins.train.trainers",
    "framefleet.plugins.train",
    "framefleet.plugins.train.plan",
    "framefleet.plugins.demo",
)
# What decides how all tests run, and is no module.
OF_ALL = {"pyproject.toml", "constraints.txt", "Makefile", "tests/conftest.py"}
MOST = 20  # files of `make test-changed`: about a minute
# Of files that are equally near, those that take least go first.
QUICK = ("unit", "property", "simulator", "browser", "models", "cluster", "gpu", "periphery")


def changed_files() -> set[str] | None:
    """Return the paths that differ from upstream; None where git does not know."""
    try:
        base = _git("merge-base", "HEAD", "origin/main") or _git("rev-parse", "HEAD")
        paths = f"{_git('diff', '--name-only', base)}\n{_git('ls-files', '--others', '--exclude-standard')}"
    except OSError:
        return None
    return {path for path in paths.split("\n") if path} if base else None


def periphery_is_concerned(changed: Collection[str] | None) -> bool:
    """Return whether the periphery changed, or what it imports itself; True where nothing is known.

    At any depth would be always: the command line, which tests use, imports everything.
    """
    if changed is None or OF_ALL & set(changed):
        return True
    found = _graph()
    own = {name for name in found.modules if f"{name}.".startswith(tuple(f"{one}." for one in PERIPHERY))}
    imported = own.union(*map(found.find_modules_directly_imported_by, own)) - {"framefleet"}
    return any(module in imported for module in map(module_of, changed))


def nearest_tests(changed: Iterable[str]) -> Mapping[str, int]:
    """Return test files and by how many imports they are away from what changed, the nearest first."""
    found = _graph()
    level = {module for module in map(module_of, changed) if module in found.modules}
    distances: dict[str, int] = {}
    distance = 0
    while level:
        distances |= dict.fromkeys(level, distance)
        importers = (found.find_modules_that_directly_import(module) for module in level)
        level = set().union(*importers) - distances.keys()
        distance += 1
    tests = {_path(name): away for name, away in distances.items() if ".test_" in name}
    return dict(
        sorted(tests.items(), key=lambda item: (item[1], QUICK.index(item[0].split("/")[1]), item[0]))
    )


def module_of(path: str) -> str:
    """Return the module of a file, or of the folder of one that is not Python."""
    name = path.removesuffix(".py") if path.endswith(".py") else path.rpartition("/")[0]
    name = name.removesuffix("/__init__").replace("/", ".")
    return name if name.split(".")[0] in PACKAGES else f"framefleet.{name}"


def _path(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def _git(*arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else ""


def main() -> int:
    changed = changed_files()
    if changed is None:
        print("this is not a clone of git: nothing says what changed; use make test", file=sys.stderr)
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
