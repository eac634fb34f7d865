"""How soon a job goes on when most of its rows are done: the steps before its first row is leased.

    python -m tools.benchmarks.resume [--rows 1000000] [--done 0.95] [--workers 2] [--ray-data]

Everything is real (table, checks, rows/, records in large parts) but the clips. The run that goes on is a
process of its own, whose memory is measured. With workers, which answer every row at once, it also dispatches
the rows left, and commits and merges their records. With --ray-data, it runs a table of that length by Ray
Data with its checkpoints, too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa

from framefleet.cluster.driver.feed import pending_rows
from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.row_parts import recall_survey, remember_survey, write_rows
from framefleet.jobs.render.survey import mark_done, survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.part_file import to_parquet
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS
from framefleet.pipeline.outputs.parts.seals import new_run, part_path
from framefleet.pipeline.rows.tables.index import RowIndex
from tools.benchmarks.dispatch import EXAMPLE, drive_null_workers, write_prompts
from tools.benchmarks.ray_checkpoints import PART_ROWS, measure_ray_data


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Seconds of each step, and the most memory of both runs, in MiB."""

    check_s: float  # of a first run: every row
    check_mib: float
    write_rows_s: float  # of a first run
    recall_s: float
    mark_done_s: float
    first_row_s: float
    resume_mib: float
    rows_per_s: float = 0.0  # from here on, of the rows left, where there are workers
    cpu_us: float = 0.0
    dispatch_mib: float = 0.0
    num_parts: float = 0.0  # in the end
    counts_s: float = 0.0  # `Output.counts`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--done", type=float, default=0.95, help="the share of rows with a record")
    parser.add_argument("--workers", type=int, default=0, help="that answer at once; 0: dispatch nothing")
    parser.add_argument("--ray-data", action="store_true", help="the same by Ray Data")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure_resume(Path(folder), rows=asked.rows, done=asked.done, workers=asked.workers)
        figures = asdict(found)
        if asked.ray_data:
            theirs = measure_ray_data(Path(folder, "ray"), asked.rows, asked.done, workers=asked.workers or 2)
            figures |= {f"Ray Data: {name}": figure for name, figure in theirs.items()}
    for name, figure in figures.items():
        print(f"{name:>22} {figure:10.1f}")


def measure_resume(folder: Path, *, rows: int, done: float, workers: int = 0) -> Resumed:
    """Make an output of a table with this many rows, records for a share of them, and go on with it."""
    from tools.benchmarks.table import build_model  # imports torch, which the other processes need not

    write_prompts(folder / "table.parquet", rows)
    values = {
        "table": str(folder / "table.parquet"),
        "model": str(build_model(folder / "model")),
        "output": str(folder / "output"),
    }
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        first = pool.submit(_first_run, values, round(rows * done)).result()
        print(first, flush=True)  # of hours, where there are many rows
        return Resumed(**first, **pool.submit(_next_run, values, workers).result())


def _first_run(values: dict[str, str], num_done: int) -> dict[str, float]:
    with closing(resolve_job(load_job(values), Callback())) as resolved, closing(RowIndex()) as index:
        started = time.monotonic()
        survey = survey_rows(resolved, index, Callback())
        index.counts()
        checked, check_mib = time.monotonic(), _peak_mib()
        with DriverLock(resolved.store) as lock:
            claim(resolved)
            write_rows(resolved, index, lock)
            remember_survey(resolved, survey)
            written = time.monotonic()
            _write_records(resolved, index, new_run(lock.epoch), num_done)
    return {"check_s": checked - started, "check_mib": check_mib, "write_rows_s": written - checked}


def _write_records(resolved: ResolvedJob, index: RowIndex, run: str, num_done: int) -> None:
    for number, first in enumerate(range(0, num_done, PART_ROWS), start=1):
        rows = index.row_ids_in(first, min(PART_ROWS, num_done - first))
        own = {"row_id": [row_id for _, row_id in rows], "row_indices": [[position] for position, _ in rows]}
        own["uri"] = [f"/output/clips/{row_id[:2]}/{row_id}.mp4" for _, row_id in rows]
        columns = [
            pa.array(own[field.name], field.type)
            if field.name in own
            else pa.repeat(pa.scalar(getattr(EXAMPLE, field.name), field.type), len(rows))
            for field in FIRST_FIELDS
        ]
        content = to_parquet(pa.table(columns, schema=FIRST_FIELDS), {})
        resolved.store.create(part_path(RECORDS, run, number, content), content)


def _next_run(values: dict[str, str], workers: int) -> dict[str, float]:
    with closing(resolve_job(load_job(values), Callback())) as resolved, closing(RowIndex()) as index:
        started = time.monotonic()
        assert recall_survey(resolved, index, Callback()) is not None
        index.counts()
        recalled = time.monotonic()
        mark_done(resolved, index, Callback())
        marked = time.monotonic()
        next(pending_rows(resolved.table, resolved.rows, index))
        found = {
            "recall_s": recalled - started,
            "mark_done_s": marked - recalled,
            "first_row_s": time.monotonic() - marked,
            "resume_mib": _peak_mib(),
        }
        print(found, flush=True)
        return found | _dispatched(resolved, index, workers) if workers else found


def _dispatched(resolved: ResolvedJob, index: RowIndex, workers: int) -> dict[str, float]:
    output = Output(resolved.store)
    with DriverLock(resolved.store) as lock:
        rate = drive_null_workers(resolved, index, lock, workers=workers)
    peak_mib, started = _peak_mib(), time.monotonic()
    assert output.counts().left == 0
    return {
        "rows_per_s": rate.rows_per_s,
        "cpu_us": rate.cpu_us,
        "dispatch_mib": peak_mib,
        "num_parts": len(resolved.store.list(RECORDS)),
        "counts_s": time.monotonic() - started,
    }


def _peak_mib() -> float:
    """Return the most memory of this process. `getrusage` would count that of the one which started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


if __name__ == "__main__":
    main()
