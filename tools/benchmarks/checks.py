"""How fast a table is checked and identified: rows per second of both passes, and the memory on the way.

    python -m tools.benchmarks.checks [--rows 10000000] [--short]

Every row has a prompt of its own, and settings in some hundred combinations. Linux only: reads /proc.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framefleet.cluster.driver.feed import pending_rows
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.rows import CheckedRow
from framefleet.plugins.forecast.plan import plan_job
from tools.benchmarks.process_tree import process_tree, pss_mib
from tools.benchmarks.table import build_model

ROWS, SHORT_ROWS = 10_000_000, 2000
RATE_ROWS = 200_000  # of the passes that are timed one by one
TABLE_ROWS = 100_000  # written at a time
POLL_S = 0.5
WORDS = ("a fox", "over", "misty mountains", "at sunrise", "in slow motion", "a city street", "neon", "rain")
NUM_WORDS = 8
HEADINGS = (
    "rows",
    "plan s",
    "CPU s",
    "peak MiB",
    "first pass rows/s",
    "second pass rows/s",
    "row by row rows/s",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """plan_s, cpu_s: of a whole `plan`, imports left out. peak_mib: of its processes, shared pages once.

    first_per_s: rows checked and put into the index. second_per_s: those fed to the driver afterwards.
    single_per_s: each checked and identified by itself, as those rows are that have nothing in common.
    """

    rows: int
    plan_s: float
    cpu_s: float
    peak_mib: float
    first_per_s: float
    second_per_s: float
    single_per_s: float

    def cells(self) -> list[str]:
        seconds = (f"{self.plan_s:.1f}", f"{self.cpu_s:.1f}")
        rates = (f"{rate:,.0f}" for rate in (self.first_per_s, self.second_per_s, self.single_per_s))
        return [f"{self.rows:,}", *seconds, f"{self.peak_mib:.0f}", *rates]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--short", action="store_true", help="a small table; its figures mean nothing")
    options = parser.parse_args()
    multiprocessing.set_start_method("fork" if options.short else "spawn", force=True)
    with tempfile.TemporaryDirectory(prefix="framefleet-checks-") as scratch:
        model = build_model(Path(scratch) / "model")
        rows = SHORT_ROWS if options.short else options.rows
        found = measure_checks(model, Path(scratch) / "checks", rows=rows)
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    print(f"| {' | '.join(found.cells())} |")


def measure_checks(model: Path, folder: Path, *, rows: int) -> Checks:
    """Check a table of so many rows, in a process of its own."""
    folder.mkdir(parents=True)
    write_table(folder / "table.parquet", rows)
    write_table(folder / "part.parquet", min(rows, RATE_ROWS))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context()) as pool:
        pid = pool.submit(_settle, model).result()
        before = sum(map(_cpu_s, process_tree(pid)))
        planned = pool.submit(_plan, model, folder)
        peak_mib = _peak_mib(pid, planned)
        cpu_s = sum(map(_cpu_s, process_tree(pid))) - before
        num_rows, plan_s = planned.result()
        assert num_rows == rows
        first, second, single = pool.submit(_rates, model, folder).result()
    return Checks(
        rows=rows,
        plan_s=plan_s,
        cpu_s=cpu_s,
        peak_mib=peak_mib,
        first_per_s=first,
        second_per_s=second,
        single_per_s=single,
    )


def write_table(path: Path, rows: int) -> None:
    draw = np.random.default_rng(0)
    with pq.ParquetWriter(path, _columns(draw, 1).schema) as writer:
        for first in range(0, rows, TABLE_ROWS):
            writer.write_table(_columns(draw, min(TABLE_ROWS, rows - first)))


def _columns(draw: np.random.Generator, rows: int) -> pa.Table:
    def some(values: Iterable[Any]) -> pa.Array:
        taken = pa.array(values).take(pa.array(draw.integers(0, len(list(values)), rows)))
        return pc.if_else(pa.array(draw.random(rows) < 0.05), None, taken)

    words = [pa.array(WORDS).take(pa.array(draw.integers(0, len(WORDS), rows))) for _ in range(NUM_WORDS)]
    seeds = pa.array(draw.integers(0, 2**31, rows), mask=draw.random(rows) < 0.05)
    height, width = some([480, 832]), some([480, 832])
    return pa.table(
        {
            "prompt": pc.binary_join_element_wise(*words, seeds.cast(pa.string()).fill_null("again"), " "),
            "seed": seeds,
            "height": height,
            "width": width,
            "guidance_scale": some([1.0, 3.0, 5.0, 7.5]),
            "num_inference_steps": some([20, 30, 40, 50]),
            "label": pa.array([f"label {number}" for number in draw.integers(0, 10**9, rows)]),
        }
    )


def _settle(model: Path) -> int:
    """Import all that a plan does; return the process' id."""
    inspect_model(model)
    return os.getpid()


def _peak_mib(pid: int, planned: Future[Any]) -> float:
    peak = 0.0
    while not planned.done():
        peak = max(peak, sum(map(pss_mib, process_tree(pid))))
        time.sleep(POLL_S)
    return peak


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system


def _plan(model: Path, folder: Path) -> tuple[int, float]:
    started = time.monotonic()
    plan = plan_job(_job(model, folder, "table"), Callback())
    assert plan.counts.pending <= plan.num_rows
    return plan.num_rows, time.monotonic() - started


def _rates(model: Path, folder: Path) -> tuple[float, float, float]:
    with (
        closing(resolve_job(_job(model, folder, "part"), Callback())) as resolved,
        closing(RowIndex()) as index,
    ):
        first = _per_s(lambda: survey_rows(resolved, index, Callback()).num_rows)
        index.counts()
        second = _per_s(lambda: sum(1 for _ in pending_rows(resolved.table, resolved.rows, index)))
        return first, second, _per_s(lambda: _single(resolved))


def _single(resolved: ResolvedJob) -> int:
    rows = (
        row for first, batch in resolved.table.batches() for row in resolved.first.plan.rows(first, batch)
    )
    some = islice(rows, RATE_ROWS // 10)
    return sum(1 for row in some if isinstance(row, CheckedRow) and resolved.first.identity(row.request))


def _per_s(count: Callable[[], int]) -> float:
    started = time.monotonic()
    return count() / (time.monotonic() - started)


def _job(model: Path, folder: Path, table: str) -> Any:
    return load_job(
        {"table": str(folder / f"{table}.parquet"), "model": str(model), "output": str(folder / "output")}
    )


if __name__ == "__main__":
    main()
