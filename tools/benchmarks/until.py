"""How long workers wait, and how many clips are surplus, where a job renders until enough clips pass.

    python -m tools.benchmarks.until [--groups 12] [--short]

The shipped model on two CPU workers, five clips of each group, by a score that one clip in three passes. The
second line is a plain job of as many rows. Waiting is the time of workers that have no row. Prints figures
and judges none.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import framefleet
from framefleet.pipeline.metrics import idle_shares
from framefleet.plugins.demo.prepare import MODEL
from tools.benchmarks.prediction import PROMPTS
from tools.benchmarks.results import Result, tables

ARGUMENTS = {"num_inference_steps": 8, "num_frames": 17}
UNTIL = {"accepted": 5, "per": ["name"], "where": "third < 0.34", "at_most": 40}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.until", description=__doc__)
    parser.add_argument("--groups", type=int, default=12)
    parser.add_argument("--short", action="store_true", help="two small groups; its figures mean nothing")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="framefleet-bench-") as folder:
        if options.short:
            results = measure(Path(folder), 2, {**UNTIL, "accepted": 1}, {"num_inference_steps": 1})
        else:
            results = measure(Path(folder), options.groups, UNTIL, ARGUMENTS)
        print(tables(results))


def measure(
    folder: Path, num_groups: int, until: dict[str, Any], arguments: dict[str, Any]
) -> Iterator[Result]:
    """Yield the figures of the job with `until`, then of a plain one."""
    names = [f"group {number}" for number in range(num_groups)]
    num_rows = 0
    for way in ("until", "plain"):
        seeds = [0] if way == "until" else range(max(1, num_rows // num_groups))
        rows = [
            {"prompt": f"{PROMPTS[number % len(PROMPTS)]}, {name}", "name": name, "seed": seed}
            for seed in seeds
            for number, name in enumerate(names)
        ]
        job: dict[str, Any] = {
            "output": str(folder / way),
            "model": {"path": str(MODEL), "device": "cpu"},
            "fleet": {"workers": 2, "gpus_per_worker": 0},
            "defaults": arguments,
            "scores": ["tests.until:third"],
        }
        job |= {"until": until} if way == "until" else {}
        summary = framefleet.render(job, table=rows)
        num_rows = num_rows or summary.done
        groups = framefleet.acceptance(job["output"]).groups if way == "until" else ()
        surplus = sum(group.num_surplus for group in groups)
        yield {
            "job": way,
            "rows": summary.done,
            "surplus": f"{surplus / summary.done:.1%}" if groups else "",
            "s": f"{summary.elapsed_s:.0f}",
            "waiting": f"{idle_shares(summary.figures).get('rows', 0.0):.1%}",
        }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
