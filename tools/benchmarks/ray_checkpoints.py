"""Ray Data with its checkpoints on a table as long as that of `resume.py`: its start, its rate, its memory.

A checkpoint has the ids of rows that are done. Rows are answered at once, as by `NullWorker`, and written as
Parquet files.
"""

from __future__ import annotations

import time
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread

import pyarrow as pa
import pyarrow.parquet as pq

from tools.benchmarks.process_tree import process_tree, pss_mib

PART_ROWS = 1 << 17


def measure_ray_data(folder: Path, rows: int, done: float, *, workers: int) -> dict[str, float]:
    """Return seconds until the first row is there, rows per second from then on, and MiB of all processes.

    The memory (PSS) is the most of all processes together, Ray's own daemons too, and of the largest one.
    """
    ids = [f"{number:032x}" for number in range(rows)]
    num_done = round(rows * done)
    for name in ("table", "checkpoint"):
        (folder / name).mkdir(parents=True)
    with pq.ParquetWriter(folder / "table/0.parquet", pa.schema([("id", pa.string())])) as writer:
        for first in range(0, rows, PART_ROWS):
            writer.write_table(pa.table({"id": ids[first : first + PART_ROWS]}))
    for first in range(0, num_done, PART_ROWS):
        part = pa.table({"id": ids[first : min(first + PART_ROWS, num_done)]})
        pq.write_table(part, folder / f"checkpoint/{first}.parquet")
    process = get_context("spawn").Process(target=_go_on, args=(folder, workers))
    started = time.time()
    process.start()
    assert process.pid is not None
    ended, memory = Event(), _Memory(process.pid)
    watch = Thread(target=memory.watch, args=(ended,))
    watch.start()
    process.join()
    took_s = time.time() - started
    ended.set()
    watch.join()
    assert process.exitcode == 0
    written = pq.read_table(folder / "records", columns=["at"])
    assert len(written) == rows - num_done
    first_s = min(written["at"].to_pylist()) - started
    return {
        "first_row_s": first_s,
        "rows_per_s": len(written) / (took_s - first_s),
        "all_mib": memory.most_mib,
        "largest_mib": memory.largest_mib,
    }


class _Memory:
    """The most memory of a process and all that it started, as it is looked at twice a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.most_mib = self.largest_mib = 0.0

    def watch(self, ended: Event) -> None:
        while not ended.wait(0.5):
            found = [pss_mib(pid) for pid in process_tree(self._pid)]
            self.most_mib = max(self.most_mib, sum(found))
            self.largest_mib = max(self.largest_mib, *found)


def _go_on(folder: Path, workers: int) -> None:
    import ray
    import ray.data
    from ray.data.checkpoint import CheckpointConfig

    ray.init("local", num_cpus=workers + 2, include_dashboard=False, log_to_driver=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig("id", str(folder / "checkpoint"))
    data = ray.data.read_parquet(str(folder / "table"))
    answered = data.map_batches(_Answer, batch_size=256, batch_format="pyarrow", concurrency=workers)
    answered.write_parquet(str(folder / "records"))
    ray.shutdown()


class _Answer:
    """What takes the place of a worker."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        return rows.append_column("at", pa.array([time.time()] * len(rows)))
