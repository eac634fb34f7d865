"""Jobs for tests: tables of tiny rows, renders in processes of their own, and what an output then holds."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from framefleet import Store
from framefleet.cluster.driver.lock import Holder, last_reports
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.python_table import stored_rows
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.metrics import LOAD, WORKER_SECONDS
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.parts.seals import epochs_of
from tests.tiny import SMALLEST, UNLIKE, tiny
from tests.warm.process import start

ROOT = Path(__file__).parent.parent
PROMPTS = ("a red ball bounces", "一只猫在海边奔跑", "rain on a tin roof", "城市的夜晚")


def prompt_rows(count: int, **more: Any) -> list[dict[str, Any]]:
    """Rows that differ in prompt, seed, steps and guidance."""
    return [
        {
            "prompt": PROMPTS[i % len(PROMPTS)],
            "seed": i,
            "num_inference_steps": 2 + i % 3,
            "guidance_scale": (1.0, 3.5, 5.0)[i % 3],
            "tag": f"row {i}",
            **more,
        }
        for i in range(count)
    ]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def job_values(
    table: Path, output: Path | str, *, model: str = "wan", address: str | None = None, **more: Any
) -> dict[str, Any]:
    """A job on a tiny model, as a job file holds it: two CPU workers, every forward size in use.

    address: of the cluster to join, as `ray_cluster`; None starts a Ray of its own, which takes long.
    """
    return {
        "table": str(table),
        "output": str(output),
        "model": str(tiny(model)),
        "defaults": {"max_sequence_length": 32, **(SMALLEST | UNLIKE)[model]},
        "batching": {"max_rows": 4, "min_gain": 0},
        "fleet": {"workers": 2, "gpus_per_worker": 0, "address": address},
        **more,
    }


def write_job(path: Path, values: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(values), allow_unicode=True), encoding="utf-8")
    return path


def resolved_from(values: Mapping[str, Any] | Path) -> closing[ResolvedJob]:
    """Return the job of these values or of this file, as a run opens it, to be closed by a context."""
    return closing(resolve_job(load_job(values), Callback()))


def with_rows(job: Any, rows: object) -> Job:
    """Return the job with these rows as its table, which its output has."""
    with stored_rows(job, rows) as loaded:
        return loaded


def start_render(job: Path, *, is_cold: bool = False) -> subprocess.Popen[str]:
    return start("-m", "framefleet.jobs.cli", "render", job, is_cold=is_cold)


def read_until(text: str, process: subprocess.Popen[str]) -> None:
    """Return once a process has printed this."""
    assert process.stdout is not None
    printed = ""
    while text not in printed:
        line = process.stdout.readline()
        assert line, printed
        printed += line


def wait_until(is_so: Callable[[], object], process: subprocess.Popen[Any] | None = None) -> None:
    """Wait for what comes at some time, while a process that brings it about is alive."""
    deadline = time.monotonic() + 400
    while not is_so():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)


def num_clips(output: Path) -> int:
    return len(list(output.glob("clips/*/[!.]*.mp4")))


def finish(process: subprocess.Popen[str], *, exits: int = 0, timeout_s: float = 240) -> str:
    """Wait for a process that must end with this exit code; return what it printed."""
    printed, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == exits, printed
    return printed


def records_of(output: Path | str, folder: str = "records") -> list[dict[str, Any]]:
    return all_columns(Store(str(output)), folder).to_pylist()


def all_columns(store: Store, folder: str) -> pa.Table:
    """Every part of a folder, with the columns that were carried."""
    parts = [pq.read_table(pa.BufferReader(store.read(path))) for path in store.list(folder)]
    return pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({})


def holder_of(output: Path | str) -> Holder | None:
    """Who had the output last, or has it; None where nobody did."""
    store = Store(str(output))
    epochs = epochs_of(store)
    return Holder.read(store, epochs[-1]) if epochs else None


def seconds_of_loads(output: Path | str) -> list[float]:
    """How long workers loaded their models for each driver of an output."""
    reports = last_reports(Store(str(output)))
    return [WORKER_SECONDS.by_label(report.figures).get(LOAD, 0.0) for report in reports]


def digests_by_tag(output: Path | str) -> dict[str, tuple[str, str]]:
    """frames_sha256 and media_sha256 of every row, by the table's own name for it."""
    return {row["tag"]: (row["frames_sha256"], row["media_sha256"]) for row in records_of(output)}


def check_whole(output: Path) -> None:
    """Whatever a reader finds is whole: every part, every record's clip, and every clip without a record."""
    for record in records_of(output):
        content = (output / record["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record["media_sha256"]
    for clip in output.glob("clips/*/[!.]*"):
        assert len(decode(clip.read_bytes()))


def descendants(pid: int) -> Iterable[int]:
    """Process ids below `pid`."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
                continue
    below, layer = [], [pid]
    while layer:
        layer = [child for child, parent in parents.items() if parent in layer]
        below += layer
    return below


def worker_pids(driver_pid: int, actor: str = "Actor") -> list[int]:
    """The actors of that class, of a driver that started its own Ray."""
    found = []
    for pid in descendants(driver_pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if command.startswith(f"ray::{actor}".encode()):
            found.append(pid)
    return found
