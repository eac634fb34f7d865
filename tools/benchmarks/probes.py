"""What it costs to find sizes and pins of batches, and what is left of it where they are remembered.

    python -m tools.benchmarks.probes                    # the model of `make bench`, in one process
    python -m tools.benchmarks.probes --device cuda

Until the first forward of `--rows` rows whose results are used: forwards of one row and of several, and the
seconds that were not spent on a row's own forward. On a CPU they are the thread's. Prints figures and judges
none.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from rich import box
from rich.console import Console
from rich.table import Table

from framefleet import Audit, Batching, Model, Renderer, Request, load_model
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.render.fused.calls import Call, Result
from tools.benchmarks.ceiling import request_of
from tools.benchmarks.table import build_model, uniform_rows


class Start:
    """Counts and seconds of forwards until the first of `rows` rows is used."""

    def __init__(self, rows: int, clock: Callable[[], float]) -> None:
        self.forwards: Counter[int] = Counter()  # by their rows
        self.seconds = self.alone_s = 0.0
        self.is_full = False
        self._rows, self._clock = rows, clock

    def run(self, name: str, run: Callable[..., list[Result]], calls: Sequence[Call]) -> list[Result]:
        """Put around `Forwards.run`."""
        before, counted, started = self.alone_s, self.forwards.copy(), self._clock()
        results = run(calls)
        if self.is_full or max(result.rows for result in results) == self._rows:
            self.alone_s, self.forwards, self.is_full = before, counted, True
        else:
            self.seconds += self._clock() - started
        return results

    def forward(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Put around the denoiser's."""
        rows, started = len(kwargs["hidden_states"]), self._clock()
        output = forward(*args, **kwargs)
        self.forwards[rows] += 1
        self.alone_s += self._clock() - started if rows == 1 else 0.0
        return output

    def figures(self) -> list[str]:
        joined = sum(count for rows, count in self.forwards.items() if rows > 1)
        return [str(self.forwards[1]), str(joined), f"{self.seconds - self.alone_s:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.probes", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--rows", type=int, default=8, help="of the first batch that is waited for")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(build_model(Path(folder)), dtype=given.dtype, device=given.device)
        Console(width=100).print(probes_table(model, rows=given.rows))


def probes_table(model: Model, *, rows: int = 8) -> Table:
    """Measure a model of the bench twice: with nothing remembered, and with all that the first found."""
    environment = model.environment
    clock = time.thread_time if environment["device"] == "cpu" else time.perf_counter
    table = Table(title=f"until the first forward of {rows} rows, {environment['dtype']}", box=box.MARKDOWN)
    for heading in ("batch sizes", "forwards of one row", "of several", "seconds of probing"):
        table.add_column(heading, justify="right")
    requests = [request_of(row) for row in uniform_rows()[:rows]]
    # Sizes that lose up to half are used, so that a busy machine climbs as far as an idle one.
    batching = Batching(max_rows=rows, min_gain=0.5)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, {"FRAMEFLEET_CACHE": folder}),
    ):
        for state in ("searched", "remembered"):
            table.add_row(state, *measure(model, requests, clock, batching).figures())
    return table


def measure(model: Model, rows: list[Request], clock: Callable[[], float], batching: Batching) -> Start:
    """Render; return what came before the first full forward."""
    start = Start(batching.max_rows, clock)
    renderer = Renderer(model, batching, audit=Audit(every=0))
    with (
        intercept(model.denoisers(), start.forward),
        intercept({"": renderer.forwards}, start.run, method="run"),
    ):
        for _ in renderer.render(rows):
            pass
    assert start.is_full
    return start


if __name__ == "__main__":
    main()
