"""Judge odd recipes, all or by name: `python -m tools.odd_recipes [-v] [--json] [NAME ...]` prints a table.

A cell counts rows that are equal / failed / WRONG. -v: list what is not as expected. --json: print one JSON
object for each case, with every row. Exit code 1 if anything is not as expected.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict

import torch

from tests.tiny import tiny
from tools.odd_recipes.cases import CASES
from tools.odd_recipes.judge import Judged, files, judge

RUNS = ("batched", "one by one", "next run")


def main(arguments: list[str]) -> int:
    """Judge the cases of these names."""
    names = [argument for argument in arguments if not argument.startswith("-")] or [*CASES]
    torch.set_num_threads(1)  # as workers have it on a CPU
    is_json, num_complaints = "--json" in arguments, 0
    if not is_json:
        print(f"{'recipe':<50}{'expected':<10}" + "".join(f"{run:>12}" for run in RUNS) + "  mean batch")
    with files() as made:
        for name in names:
            tiny(CASES[name].model)  # built here, so that all forks find it
            judged = judge(CASES[name], made)
            num_complaints += len(judged.complaints)
            print(json.dumps(asdict(judged)) if is_json else _line(judged), flush=True)
            if "-v" in arguments:
                print("".join(f"    {complaint}\n" for complaint in judged.complaints), end="", flush=True)
    return 1 if num_complaints else 0


def _line(judged: Judged) -> str:
    cells = "".join(f"{_cell(judged, run):>12}" for run in RUNS)
    mark = "  <-" if judged.complaints else ""
    return f"{judged.case:<50}{judged.expected:<10}{cells}{judged.mean_batch:>12.2f}{mark}"


def _cell(judged: Judged, run: str) -> str:
    if run not in judged.runs:
        return ""
    count = Counter(row.verdict for row in judged.runs[run])
    return f"{count['equal']} / {count['failed']} / {count['WRONG']}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
