"""What audits cost: seconds of one, and their share of the time at `every: 1000`.

    python -m tests.benchmarks.audit                     # the table of `make bench`, in one process
    python -m tests.benchmarks.audit --device cuda

An audit is one plain call; rows under way wait for it. On a CPU its own seconds are counted, which other
processes do not change. Prints figures and judges none.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from framefleet import Audit, Batching, Clip, Model, Renderer, Request, load_model
from tests.benchmarks.table import build_model, mixed_rows

EVERY = Audit().every


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.audit", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=48)
    given = parser.parse_args()
    clock = time.process_time if given.device == "cpu" else time.perf_counter
    rows = [_request(row) for row in mixed_rows()[: given.rows]]

    def seconds(every: int) -> tuple[float, int]:
        """Return what all rows took, and how many of them were audited."""
        started, num_audits = clock(), _render(model, rows, every=every)
        return clock() - started, num_audits

    with tempfile.TemporaryDirectory() as folder:
        model = load_model(build_model(Path(folder)), dtype="fp32", device=given.device)
        seconds(0)  # kernels are prepared
        started = clock()
        Renderer(model)
        ready_s = clock() - started
        without_s, _ = seconds(0)
        with_s, num_firsts = seconds(EVERY)
        often_s, num_audits = seconds(4)
    row_s, audit_s = without_s / len(rows), (often_s - without_s) / num_audits
    print(f"{len(rows)} rows: {without_s:.2f} s without audits, {with_s:.2f} s with {num_firsts} first ones")
    print(f"a renderer keeps the pipeline as it is, and is ready, in {1000 * ready_s:.0f} ms")
    print(f"one audit: {audit_s:.2f} s, as long as {audit_s / row_s:.1f} rows in company")
    print(f"one in {EVERY}: {audit_s / (EVERY * row_s):.2%} of the time")


def _render(model: Model, rows: list[Request], *, every: int) -> int:
    renderer = Renderer(model, Batching(), audit=Audit(every=every))
    assert all(isinstance(clip, Clip) for clip in renderer.render(rows))
    audits = renderer.take_audits()
    assert all(audited.verdict == "equal" for audited in audits)
    return len(audits)


def _request(row: dict[str, Any]) -> Request:
    others = {"number", "seed", "scheduler"}
    arguments = {name: value for name, value in row.items() if name not in others}
    return Request(arguments=arguments, seed=row["seed"], scheduler=row["scheduler"])


if __name__ == "__main__":
    main()
