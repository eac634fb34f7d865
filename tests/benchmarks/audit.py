"""What audits cost: seconds of the first, and their share of the time at `every: 1000`.

    python -m tests.benchmarks.audit                     # the table of `make bench`, in one process
    python -m tests.benchmarks.audit --device cuda

An audit is one plain call; rows under way wait for it. Prints figures and judges none.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from framefleet import Audit, Batching, Clip, Model, Renderer, Request, load_model
from tests.benchmarks.table import build_model, mixed_rows

EVERY = Audit().every


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.audit", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=48)
    given = parser.parse_args()
    rows = [_request(row) for row in mixed_rows()[: given.rows]]
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(build_model(Path(folder)), dtype="fp32", device=given.device)
        started = time.perf_counter()
        Renderer(model)
        kept_s = time.perf_counter() - started
        _render(model, rows, every=0)  # kernels are prepared
        without_s, _ = _render(model, rows, every=0)
        once_s, firsts = _render(model, rows, every=EVERY)
        _, audits = _render(model, rows, every=8)
    row_s, audit_s = without_s / len(rows), mean(audits)
    print(f"{len(rows)} rows: {without_s:.2f} s without audits, {once_s:.2f} s with {len(firsts)} first ones")
    print(f"a renderer that keeps the pipeline as it is: ready in {1000 * kept_s:.0f} ms")
    print(f"first audit: {mean(firsts):.2f} s, as long as {mean(firsts) / row_s:.1f} rows in company")
    print(f"one audit: {audit_s:.2f} s; one in {EVERY}: {audit_s / (EVERY * row_s):.2%} of the time")


def _render(model: Model, rows: list[Request], *, every: int) -> tuple[float, list[float]]:
    """Return the seconds of all rows, and those of each audit among them."""
    renderer = Renderer(model, Batching(), audit=Audit(every=every))
    started = time.perf_counter()
    clips = list(renderer.render(rows))
    seconds = time.perf_counter() - started
    assert all(isinstance(clip, Clip) for clip in clips)
    audits = renderer.take_audits()
    assert all(audited.verdict == "equal" for audited in audits)
    return seconds, [audited.seconds for audited in audits]


def _request(row: dict[str, Any]) -> Request:
    others = {"number", "seed", "scheduler"}
    arguments = {name: value for name, value in row.items() if name not in others}
    return Request(arguments=arguments, seed=row["seed"], scheduler=row["scheduler"])


if __name__ == "__main__":
    main()
