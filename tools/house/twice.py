"""Public names that more than one file defines: a reader who searches for one finds another."""

from __future__ import annotations

from collections.abc import Iterator

from tools.house.house import PACKAGES, Finding, House
from tools.house.symbols import defined

# Each file has its logger, each that is started its main, and each plugin its value.
_ANYWHERE = {"log", "main", "PLUGIN"}

# Twice for a reason, which stands behind it.
MEANT = ("verify_command",)  # of an output, and of a model: `framefleet verify` and `framefleet model verify`


def doubled_names(house: House) -> Iterator[Finding]:
    """Yield the names that mean two things, and those said to that do not any more."""
    found = doubled(house)
    for name, places in found.items():
        if name not in MEANT:
            first, *others = places
            problem = f"{name} is defined in {', '.join(others)} too: one name for one thing"
            yield Finding(first, places[first], problem)
    for name in MEANT:
        if name not in found:
            yield Finding("tools/house/twice.py", 1, f"MEANT lists {name}, which is not twice any more")


def doubled(house: House) -> dict[str, dict[str, int]]:
    """Return the public functions, classes and values that several files define: by name, path and line."""
    found: dict[str, dict[str, int]] = {}
    for path, tree in house.trees.items():
        if path.startswith(PACKAGES):
            for node in tree.body:
                for name in defined([node]):
                    if not name.startswith("_") and name not in _ANYWHERE:
                        found.setdefault(name, {}).setdefault(path, node.lineno)
    return {name: places for name, places in found.items() if len(places) > 1}
