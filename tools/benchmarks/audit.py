"""What audits cost: seconds of one, and their share of the time at `every: 1000`.

    python -m tools.benchmarks.audit                     # the table of `make bench`, in one process
    python -m tools.benchmarks.audit --device cuda

An audit is one plain call; rows under way wait for it. On a CPU its own seconds are counted, which other
processes do not change. Prints figures and judges none.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framefleet import Audit, Clip, Renderer, Request, load_model
from tools.benchmarks.table import build_model, mixed_rows

EVERY = Audit().every


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.audit", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=32)
    given = parser.parse_args()
    clock = time.process_time if given.device == "cpu" else time.perf_counter
    rows = [_request(row) for row in mixed_rows()[: given.rows]]
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(build_model(Path(folder)), dtype="fp32", device=given.device)
        never = Renderer(model, audit=Audit(every=0))
        started = clock()
        always = Renderer(model, audit=Audit(every=1))
        ready_s = clock() - started
        without_s = _seconds(never, rows, clock) / len(rows)
        with_s = _seconds(always, rows, clock) / len(rows)
    audit_s = with_s - without_s
    print("| what | seconds |", "|---|---|", sep="\n")
    print(f"| a row, batched | {without_s:.3f} |", f"| its audit | {audit_s:.3f} |", sep="\n")
    print(f"| one audit in {EVERY} rows, for each row | {audit_s / EVERY:.5f} |")
    print(f"| a renderer keeps the pipeline as it is, once | {ready_s:.3f} |")


def _seconds(renderer: Renderer, rows: list[Request], clock: Callable[[], float]) -> float:
    """Render twice, as the first time sizes are tried; return what the second time took."""
    for _ in range(2):
        started = clock()
        assert all(isinstance(clip, Clip) for clip in renderer.render(rows))
        seconds = clock() - started
    assert all(audited.verdict == "equal" for audited in renderer.take_audits())
    return seconds


def _request(row: dict[str, Any]) -> Request:
    others = {"number", "seed", "scheduler"}
    arguments = {name: value for name, value in row.items() if name not in others}
    return Request(arguments=arguments, seed=row["seed"], scheduler=row["scheduler"])


if __name__ == "__main__":
    main()
