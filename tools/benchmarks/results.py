"""What benchmarks measured, as flat values: into lines, and into tables of Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any

Result = dict[str, Any]
Tell = Callable[[Result], Any]


def line(result: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in result.items())


def tables(results: Iterable[Mapping[str, Any]]) -> str:
    """Return a table for each run of results that have the same names."""
    return "\n".join(_table(names, list(group)) for names, group in groupby(results, key=tuple))


def _table(names: tuple[str, ...], results: list[Mapping[str, Any]]) -> str:
    rows = [names, ["---"] * len(names), *([result[name] for name in names] for result in results)]
    return "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in rows)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
