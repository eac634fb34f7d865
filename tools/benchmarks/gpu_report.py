"""From what the parts of a GPU day left to a report: Markdown to read, JSON to compute with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tools.benchmarks.results import Result, tables

State = Literal["runs", "ended", "failed", "out of time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one part stands. printed: by one without results. error: the traceback, or the end of its log."""

    part: str
    program: str
    state: State
    seconds: float
    results: Sequence[Result]
    printed: str = ""
    error: str = ""


def write_report(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write it as JSON and as Markdown, each whole at any moment."""
    repeated = repeats(outcomes)
    content = {"parts": [asdict(outcome) for outcome in outcomes], "other process": repeated}
    _replace(folder / "report.json", json.dumps(content, indent=2) + "\n")
    text = "# GPU day\n\n" + "".join(map(_section, outcomes))
    if repeated:
        text += "## Digests of rows alone, in two processes\n\n" + tables(repeated)
    _replace(folder / "report.md", text)


def repeats(outcomes: Sequence[Outcome]) -> list[Result]:
    """Return of each case that two processes ran in the same way whether its bits were the same."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    found = []
    for outcome in outcomes:
        for result in outcome.results:
            if "digest" not in result or "case" not in result:
                continue
            key = result["case"], result["products"]
            part, digest = seen.setdefault(key, (outcome.part, result["digest"]))
            if part != outcome.part:
                found.append({"case": key[0], "products": key[1], "is the same": digest == result["digest"]})
    return found


def _section(outcome: Outcome) -> str:
    lines = [f"## {outcome.part}: {outcome.state} after {outcome.seconds} s", f"`{outcome.program}`"]
    if outcome.results:
        lines.append(tables(outcome.results).rstrip())
    for text in filter(None, (outcome.printed, outcome.error)):
        lines.append("\n".join(f"    {line}" for line in text.splitlines()))
    return "\n\n".join(lines) + "\n\n"


def _replace(file: Path, text: str) -> None:
    written = file.with_name(f".{file.name}")
    written.write_text(text)
    os.replace(written, file)
