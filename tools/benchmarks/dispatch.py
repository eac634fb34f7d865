"""How fast the driver is when rendering takes no time: rows per second, and its memory on the way.

Everything is real (table, checks, index, Ray, dispatcher, records in a local folder) but the workers, which
answer every row at once with a made-up record.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import framefleet
from framefleet.cluster.driver.driver import Driver
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.driver.progress import Progress
from framefleet.cluster.fleet.fleet import Fleet
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.cluster.worker.messages import Assignment, Hello, StoredRow, WorkerReport, WorkerSetup
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.render import run_of
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.outputs.parts.records import Record
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.model_files import model_files

TABLE_ROWS = 4096  # written at a time
NOTHING_TO_DO_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """rows_per_s: from the first worker to the last record on disk. checked_per_s: of the first pass.

    cpu_us: of the driver's process, for each row, as that depends less on what else the machine does.
    rss_mib: of the driver as the first worker is ready, at half of the rows, and at the end.
    """

    rows: int
    rows_per_s: float
    cpu_us: float
    checked_per_s: float
    rss_mib: tuple[float, float, float]


class NullWorker:
    """What the fleet takes for a worker, without a model."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup

    def start(self) -> Hello:
        return Hello(
            version=framefleet.__version__,
            fingerprint=source_fingerprint(),
            model_digest=model_digest(model_files(Path(self._setup.model.path))),
            environment={},
            node="here",
            pid=os.getpid(),
        )

    def exchange(self, assignments: Sequence[Assignment], _dropped: Sequence[str]) -> WorkerReport:
        if not assignments:
            time.sleep(NOTHING_TO_DO_S)  # as a worker waits for news; else both sides would spin at the end
        return WorkerReport(
            rendered=tuple(StoredRow(record=_record(assignment)) for assignment in assignments)
        )


class Watcher:
    """Notes the driver's time and memory as rows are done."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.began: float | None = None
        self.cpu_s = 0.0
        self.rss: list[float] = []

    def __call__(self, progress: Progress) -> None:
        if self.began is None and progress.workers:
            self.began, self.cpu_s = time.monotonic(), time.process_time()
            self.rss.append(_rss_mib())
        if len(self.rss) == 1 and progress.done >= self._rows / 2:
            self.rss.append(_rss_mib())


def measure_dispatch(model: Path, folder: Path, *, rows: int, workers: int) -> Dispatched:
    """Dispatch a table of so many rows, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context()) as pool:
        return pool.submit(_dispatch, model, folder, rows, workers).result()


def _dispatch(model: Path, folder: Path, rows: int, workers: int) -> Dispatched:
    folder.mkdir(parents=True)
    write_prompts(folder / "table.parquet", rows)
    job = load_job(
        {"table": str(folder / "table.parquet"), "model": str(model), "output": str(folder / "output")}
    )
    resolved = resolve_job(job, Callback())
    with closing(RowIndex()) as index, DriverLock(resolved.store) as lock:
        started = time.monotonic()
        survey_rows(resolved, index, Callback())
        assert index.counts().pending == rows
        checked_s = time.monotonic() - started
        rate = drive_null_workers(resolved, index, lock, workers=workers)
    parts = (folder / "output" / "records").iterdir()
    assert sum(pq.read_metadata(part).num_rows for part in parts) == rows
    return Dispatched(
        rows=rows,
        rows_per_s=rate.rows_per_s,
        cpu_us=rate.cpu_us,
        checked_per_s=rows / checked_s,
        rss_mib=rate.rss_mib,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """As of `Dispatched`."""

    rows_per_s: float
    cpu_us: float
    rss_mib: tuple[float, float, float]


def drive_null_workers(resolved: ResolvedJob, index: RowIndex, lock: DriverLock, *, workers: int) -> Rate:
    """Dispatch and commit every pending row."""
    rows = index.counts().pending
    watcher = Watcher(rows)
    run = run_of(resolved, index, lock, run_id=new_run(lock.epoch))
    fleet = Fleet(FleetSettings(workers=workers), run.setups, run.retries, worker_class=NullWorker)
    with fleet:
        Driver(run, on_progress=watcher).run(fleet)  # until all is committed; then Ray is stopped
        assert watcher.began is not None
        elapsed_s, cpu_s = time.monotonic() - watcher.began, time.process_time() - watcher.cpu_s
    return Rate(
        rows_per_s=rows / elapsed_s,
        cpu_us=cpu_s / rows * 1e6,
        rss_mib=(watcher.rss[0], watcher.rss[1], _rss_mib()),
    )


def write_prompts(path: Path, rows: int) -> None:
    schema = pa.schema([("prompt", pa.string()), ("seed", pa.int64()), ("label", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, TABLE_ROWS):
            numbers = range(first, min(first + TABLE_ROWS, rows))
            columns = [
                [f"a red ball, take {number}" for number in numbers],
                list(numbers),
                [f"label {number % 100}" for number in numbers],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


_NOW = datetime.now(UTC)
EXAMPLE = Record(
    row_id="",
    row_indices=(),
    uri="",
    media_sha256="a" * 64,
    frames_sha256="b" * 64,
    bytes=12345,
    height=480,
    width=832,
    num_frames=81,
    fps=16.0,
    duration_s=81 / 16,
    arguments="",
    seed=0,
    scheduler="UniPCMultistepScheduler",
    recipe="generate",
    model="model",
    model_digest="c" * 64,
    numerics="{}",
    environment="{}",
    batch_size=1.0,
    attempt=1,
    worker="",
    node="here",
    started_at=_NOW,
    finished_at=_NOW,
    encode_s=0.1,
    denoise_s=0.1,
    decode_s=0.1,
    write_s=0.1,
    peak_memory_bytes=0,
)


def _record(assignment: Assignment) -> Record:
    return replace(
        EXAMPLE,
        row_id=assignment.row_id,
        uri=f"/output/clips/{assignment.row_id[:2]}/{assignment.row_id}.mp4",
        arguments=canonical_json(assignment.request.arguments),
        seed=assignment.request.seed,
    )
