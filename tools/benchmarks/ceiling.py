"""How fast framefleet could be at most: the forwards and decodes that it runs, with nothing around them.

Each process renders its share with the Renderer (no Ray, no files), then once more, now knowing which sizes
pay, and notes every forward's rows and pins. Last it runs as many of the same forwards and decodes in a bare
loop: no text encoder, no noise scheduler, no greenlets, no files, and no probing, unless a size that did not
pay is due for another try. All three are timed.

    python -m tools.benchmarks.ceiling rows.parquet MODEL

A row of the table has all arguments, a seed, and a scheduler or none.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import torch

from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.load_model import load_model
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.render.fused.calls import Call, Result
from framefleet.pipeline.render.renderer import Renderer
from framefleet.pipeline.request import Request
from tools.benchmarks.plain import Row
from tools.benchmarks.table import MAX_ROWS

NOT_ARGUMENTS = ("number", "seed", "scheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Rows per second of all processes together.

    bare: forwards and decodes. again: the second time with the Renderer. first: the first time, with probing.
    """

    bare: float
    again: float
    first: float


class Log:
    """What was run, and how often: one example of each kind is kept."""

    def __init__(self) -> None:
        self.counts: Counter[Hashable] = Counter()
        self.again: dict[Hashable, Callable[[], Any]] = {}

    def forwards(self, name: str, run: Callable[..., list[Result]], calls: Sequence[Call]) -> list[Result]:
        results = run(calls)
        if not run.__self__.is_denoising(calls[0]):  # type: ignore[attr-defined]
            return results  # decodes are seen below
        first = 0
        while first < len(results):
            size = results[first].rows
            chunk = list(calls[first : first + size])
            self._note((chunk[0].shape, size), partial(run, chunk))
            first += size
        return results

    def decode(self, name: str, decode: Callable[..., Any], latents: torch.Tensor, **kwargs: Any) -> Any:
        self._note(("decode", latents.shape), partial(decode, latents, **kwargs))
        return decode(latents, **kwargs)

    def around(self, renderer: Renderer) -> Any:
        return intercept({"forwards": renderer.forwards}, self.forwards, method="run")

    def replay(self) -> float:
        """Run everything again; return the seconds."""
        with torch.no_grad():
            for function in self.again.values():
                function()
            started = time.perf_counter()
            for kind, count in self.counts.items():
                for _ in range(count):
                    self.again[kind]()
            return time.perf_counter() - started

    def _note(self, kind: Hashable, function: Callable[[], Any]) -> None:
        self.counts[kind] += 1
        self.again.setdefault(kind, function)


def measure_ceiling(table: Path, model: Path, *, workers: int, mode: Literal["exact", "fast"]) -> Ceiling:
    """Return the ceiling of so many processes, each with every workers-th row."""
    with ProcessPoolExecutor(workers, mp_context=get_context()) as pool:
        shares = [pool.submit(_measure_share, table, model, mode, share, workers) for share in range(workers)]
        measured = [share.result() for share in shares]
    rows = pq.read_metadata(table).num_rows
    bare, again, first = (rows * workers / sum(seconds) for seconds in zip(*measured, strict=True))
    return Ceiling(bare=bare, again=again, first=first)


def _measure_share(
    table: Path, model: Path, mode: Literal["exact", "fast"], share: int, workers: int
) -> tuple[float, float, float]:
    """Return the seconds that the bare loop, the second and the first rendering took."""
    rows = pq.read_table(table).to_pylist()[share::workers]
    rows.sort(key=lambda row: (row["height"], row["width"]))  # as the dispatcher leases them
    loaded = load_model(model)
    batching = Batching(mode=mode, max_rows=MAX_ROWS, remember=False)
    renderer, log = Renderer(loaded, batching, audit=Audit(every=0)), Log()
    first_s = _render(renderer, rows)
    with log.around(renderer), intercept({"vae": loaded.pipe.vae}, log.decode, method="decode"):
        again_s = _render(renderer, rows)
    return log.replay(), again_s, first_s


def _render(renderer: Renderer, rows: Sequence[Row]) -> float:
    started = time.perf_counter()
    clips = list(renderer.render(request_of(row) for row in rows))
    assert len(clips) == len(rows)
    return time.perf_counter() - started


def request_of(row: Row) -> Request:
    arguments = {key: value for key, value in row.items() if key not in NOT_ARGUMENTS}
    return Request(arguments=arguments, seed=row["seed"], scheduler=row.get("scheduler"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Rows that one process renders in an hour at most.")
    parser.add_argument("table", type=Path)
    parser.add_argument("model", type=Path)
    options = parser.parse_args()
    found = measure_ceiling(options.table, options.model, workers=1, mode="exact")
    print(f"{3600 * found.bare:,.0f} rows an hour at most, {3600 * found.again:,.0f} with the renderer")


if __name__ == "__main__":
    main()
