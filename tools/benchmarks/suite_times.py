"""How long the tests take, for changes of several sizes, and which files take most.

    python -m tools.benchmarks.suite_times [--only NAME ...]

Prints tables. A change is said to pytest, not made: see `--changed` in tests/tiers.py. The dearest files are
those of the last full run, `make test-all`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.durations import last_full_run

ROOT = Path(__file__).parents[2]
NOTHING, ONE_ROOM, ALL = "docs/tables.md", "cluster/dispatch/order.py", "constraints.txt"
# By name: what is said of the change, the path that changed, and whether the run is `.ci/run`'s.
RUNS = {
    "nothing": ("`make test`, no code changed", NOTHING, False),
    "room": (f"`make test`, {ONE_ROOM} changed", ONE_ROOM, False),
    "all": (f"`make test`, {ALL} changed", ALL, False),
    "ci-room": (f"`CI=1 make test`, {ONE_ROOM} changed", ONE_ROOM, True),
    "ci-all": (f"`CI=1 make test`, {ALL} changed", ALL, True),
}
NUM_FILES = 10


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=RUNS, default=list(RUNS), help="runs to measure")
    print("| run | cases | seconds |\n|---|---|---|", flush=True)
    for name in parser.parse_args(arguments).only:
        title, path, is_ci = RUNS[name]
        num_cases, wall_s = measure(path, is_ci=is_ci)
        print(f"| {title} | {num_cases:,} | {wall_s:.0f} |", flush=True)
    run = last_full_run()
    dearest = sorted(run.rooms_s, key=run.rooms_s.__getitem__, reverse=True)[:NUM_FILES]
    print(f"| `make test-all` | {run.num_cases:,} | {run.wall_s:.0f} |")
    for file in dearest:
        num_slow, room_s = len(run.slow_s[file]), run.rooms_s[file]
        print(f"| of these, {file} | {num_slow} slow ones | {room_s:.0f} of test time |")


def measure(path: str, *, is_ci: bool) -> tuple[int, float]:
    """Return how many cases passed after a change of a file, and the seconds. Exits where one fails."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PYTEST_ADDOPTS": f"--changed={path}"} | ({"CI": "1"} if is_ci else {})
    began = time.monotonic()
    ran = subprocess.run(["make", "test"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        sys.exit(ran.stdout)
    (num_cases,) = re.findall(r"^(\d+) passed, ", ran.stdout, re.MULTILINE)
    return int(num_cases), time.monotonic() - began


if __name__ == "__main__":
    main()
