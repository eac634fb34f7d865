"""Public names that more than one file defines: a reader who searches for one finds another."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.house import PACKAGES, Finding, House
from tests.house.symbols import Definition, defined

# Words of Python's own: each file has its logger, and each that is started its main.
_ANYWHERE = {"log", "main"}

# Twice for a reason, which stands behind it.
MEANT = (
    "Callback",  # of pipelines, as diffusers has it, and of jobs
    "Choice",  # of an option and of a training's setting: each beside the class that it is for
    "DTYPES",  # of torch, and as safetensors spells them
    "Generators",  # of two pipelines that stand alone, as diffusers' files do
    "train",  # of one process, and of a job on a cluster, as `framefleet.train`
)


def doubled_names(house: House) -> Iterator[Finding]:
    """Yield the names that mean two things, and those said to that do not any more."""
    found = definitions(house)
    for name, places in found.items():
        if len(places) > 1 and name not in MEANT:
            others = ", ".join(path for path, _ in places[1:])
            yield Finding(*places[0], f"{name} is defined in {others} too: one name for one thing")
    for name in MEANT:
        if len(found.get(name, [])) < 2:
            yield Finding("tests/house/twice.py", 1, f"MEANT lists {name}, which is not twice any more")


def definitions(house: House) -> dict[str, list[tuple[str, int]]]:
    """Return where each public function, class and value is defined: path and line."""
    found: dict[str, list[tuple[str, int]]] = {}
    for path, tree in house.trees.items():
        if path.startswith(PACKAGES):
            for node in tree.body:
                if not _is_command(node):
                    for name in defined([node]):
                        if not name.startswith("_") and name not in _ANYWHERE:
                            found.setdefault(name, []).append((path, node.lineno))
    return found


def _is_command(node: ast.stmt) -> bool:
    """Say whether it is a function of the command line, whose name is the word that people type."""
    return isinstance(node, Definition) and any(
        ast.unparse(decorator).endswith(".command()") for decorator in node.decorator_list
    )
