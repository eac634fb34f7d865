"""How soon a job goes on when most of its rows are done: the steps before its first row is leased.

    python -m tools.benchmarks.resume [--rows 1000000] [--done 0.95]

Everything is real (table, checks, rows/, records in parts as `framefleet compact` leaves them) but the clips.
The run that goes on is a process of its own, whose memory is measured.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa

from framefleet.cluster.driver.feed import pending_rows
from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.job.file import job_from_mapping
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.recalled_survey import recall_survey, remember_survey
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.row_parts import write_rows
from framefleet.jobs.render.survey import mark_done, survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.part_file import to_parquet
from framefleet.pipeline.outputs.parts.part_names import new_run, part_path
from framefleet.pipeline.outputs.parts.records import FIRST_FIELDS
from framefleet.pipeline.rows.tables.index import RowIndex
from tools.benchmarks.dispatch import EXAMPLE, write_prompts

PART_ROWS = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Seconds of each step, and the most memory of the run that goes on, in MiB."""

    check_s: float  # of a first run: every row
    write_rows_s: float  # of a first run
    recall_s: float
    mark_done_s: float
    first_row_s: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--done", type=float, default=0.95, help="the share of rows with a record")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure_resume(Path(folder), rows=asked.rows, done=asked.done)
    for field in fields(found):
        print(f"{field.name:>14} {getattr(found, field.name):10.1f}")


def measure_resume(folder: Path, *, rows: int, done: float) -> Resumed:
    """Make an output of a table with this many rows, records for a share of them, and go on with it."""
    from tools.benchmarks.table import build_model  # imports torch, which the other processes need not

    write_prompts(folder / "table.parquet", rows)
    values = {
        "table": str(folder / "table.parquet"),
        "model": str(build_model(folder / "model")),
        "output": str(folder / "output"),
    }
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        check_s, write_rows_s = pool.submit(_first_run, values, round(rows * done)).result()
        recall_s, mark_done_s, first_row_s, peak_mib = pool.submit(_next_run, values).result()
    return Resumed(
        check_s=check_s,
        write_rows_s=write_rows_s,
        recall_s=recall_s,
        mark_done_s=mark_done_s,
        first_row_s=first_row_s,
        peak_mib=peak_mib,
    )


def _first_run(values: dict[str, str], num_done: int) -> tuple[float, float]:
    with closing(resolve_job(job_from_mapping(values), Callback())) as resolved, closing(RowIndex()) as index:
        started = time.monotonic()
        survey = survey_rows(resolved, index, Callback())
        index.counts()
        checked = time.monotonic()
        with DriverLock(resolved.store) as lock:
            claim(resolved)
            write_rows(resolved, index, lock)
            remember_survey(resolved, survey)
            written = time.monotonic()
            _write_records(resolved, index, new_run(lock.epoch), num_done)
    return checked - started, written - checked


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


def _next_run(values: dict[str, str]) -> tuple[float, float, float, float]:
    with closing(resolve_job(job_from_mapping(values), Callback())) as resolved, closing(RowIndex()) as index:
        started = time.monotonic()
        assert recall_survey(resolved, index, Callback()) is not None
        index.counts()
        recalled = time.monotonic()
        mark_done(resolved, index, Callback())
        marked = time.monotonic()
        next(pending_rows(resolved.table, resolved.rows, index))
        found = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return recalled - started, marked - recalled, found - marked, peak


if __name__ == "__main__":
    main()
