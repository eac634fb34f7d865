"""Figures of pages, measured and written into their blocks, each with its commit and processor.

To add a table: an entry in `TABLES`, by its name a function that returns Markdown (`Command` is one, of a
program that prints a table), and in a page a block of this name (tools/house/measurements.py).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from framefleet.pipeline.model.environment import lines_beginning
from tools.house.measurements import BLOCK, block, has_figures

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Command:
    """A program of tools/benchmarks that prints a table as Markdown. short: arguments to see that it runs."""

    program: str
    arguments: tuple[str, ...] = ()
    short: tuple[str, ...] = ("--short",)

    def __call__(self, is_short: bool) -> str:
        arguments = self.short if is_short else self.arguments
        command = [sys.executable, "-m", f"tools.benchmarks.{self.program}", *arguments]
        printed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        return "".join(line for line in printed.splitlines(keepends=True) if line.startswith("|"))

    def __str__(self) -> str:
        return " ".join(("python -m", f"tools.benchmarks.{self.program}", *self.arguments))


TABLES: Mapping[str, Callable[[bool], str]] = {
    "mixed": Command("bench", ("--only", "mixed"), ("--only", "mixed", "--short")),
    "uniform": Command("bench", ("--only", "uniform"), ("--only", "uniform", "--short")),
    "larger": Command("large"),
    "clips": Command("pixels", ("--all",)),
    "checks": Command("checks", ("--rows", "1000000")),
    "compared": Command("compared", (), ("--only", "row")),
    "counts": Command("counts", (), ("alone",)),
    "dispatch": Command("bench", ("--only", "dispatch"), ("--only", "dispatch", "--short")),
    "probes": Command("probes", (), ("--rows", "2")),
    "start": Command("start"),
    "audit": Command("audit", (), ("--rows", "2")),
    "audits-simulated": Command(
        "audits_simulated",
        ("--jobs", "40", "--sizes", "100", "1000", "10000"),
        ("--jobs", "2", "--sizes", "100"),
    ),
    "audits-at-most": Command(
        "audits_simulated",
        ("--jobs", "40", "--at-most", "0.05", "--sizes", "100", "1000"),
        ("--jobs", "2", "--sizes", "100"),
    ),
    "ledger": Command("ledger"),
    "load": Command("load"),
    "marks": Command("marks", ("cost", "--rows", "8"), ("cost", "--rows", "2", "--short")),
    "prediction": Command("prediction"),
    "release": Command("release"),
    "tests": Command("suite_times", ("--only", "nothing"), ("--only",)),
    "training": Command("training"),
    "under-fire": Command(
        "under_fire", (), ("--rows", "40", "--seeds", "1", "--systems", "plain", "framefleet")
    ),
    "until": Command("until"),
}


def write_docs(names: Collection[str], *, is_short: bool = False, root: Path = ROOT) -> None:
    """Measure tables, those named or all but `release` and `tests`, and write them into the pages' blocks."""
    if unknown := {*names} - {*TABLES}:
        raise SystemExit(
            f"--write-docs: no table is called {', '.join(sorted(unknown))}; use {', '.join(TABLES)}"
        )
    pages = {file: file.read_text() for file in _pages(root)}
    in_pages = {match["name"] for text in pages.values() for match in BLOCK.finditer(text)}
    place = _place()  # before pages change
    for name in [name for name in TABLES if name in (names or in_pages - {"release", "tests"})]:
        print(name, file=sys.stderr, flush=True)
        warning = "**A trial, its figures mean nothing.** " if is_short else ""
        written = block(name, f"{TABLES[name](is_short)}\n{warning}`{TABLES[name]}` {place}\n")
        for file, text in pages.items():
            changed = BLOCK.sub(lambda match: written if match["name"] == name else match[0], text)  # noqa: B023
            if changed != text:
                file.write_text(changed)
                pages[file] = changed


def _place() -> str:
    """Return where and when tables are measured."""
    changes = " with changes" if _git("status", "--porcelain") else ""
    day = datetime.now(UTC).date().isoformat()
    return f"at commit {_git('rev-parse', '--short=8', 'HEAD')}{changes}, {day}, on {_processor()}."


def _processor() -> str:
    models = [line.partition(":")[2].strip() for line in lines_beginning("/proc/cpuinfo", ("model name",))]
    return f"{os.cpu_count()} cores of {models[0] if models else platform.machine()}"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def _pages(root: Path) -> list[Path]:
    files = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]
    return [file for file in files if has_figures(file.relative_to(root).as_posix()) and file.exists()]
