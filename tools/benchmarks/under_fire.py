"""Five systems that render the same rows while a killer is about: what each output has in the end.

    python -m tools.benchmarks.under_fire [--rows 1000] [--seeds 3] [--systems NAME ...]

The rows are tiny, the output is a bucket of an S3 server, and each system is used as its own documentation
shows it (fire_systems.py). At points that a seed chooses, in any order: the worker that began the last row is
killed, the driver is killed, the store refuses connections for 20 s, and the disk of temporary files is full
for 5 s (which needs root, for a small file system). When the command ends with an error, or begins no row
for two minutes, a person starts it again, as soon as store and disk are well: a hand. If it ended within
half a minute, they kill what it left first. fire_reader.py counts the rows of all systems. Seconds lost are
those beyond the undisturbed run. Values of the seeds are separated by commas.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.faulty_s3 import Fault, FaultyS3, faulty_s3
from tests.jobs import PROMPTS, ROOT
from tests.servers import KEY, SECRET, bucket_on, moto
from tests.tiny import build
from tools.benchmarks.fire_reader import RESULTS, Bucket, Counts, Digests, counts, digests
from tools.benchmarks.fire_systems import PART_ROWS, SETTINGS, WORKERS
from tools.benchmarks.process_tree import process_tree
from tools.benchmarks.results import Result, tables
from tools.chaos.traced import TRACE, read_trace

FAULTS = ("worker", "driver", "store", "disk")
STORE_S, DISK_S = 20.0, 5.0
DISK_SIZE = "16m"  # clips have 2 KB
LOOK_S = 0.1
SOON_S, IDLE_S = 30.0, 120.0  # a start takes 15 s on a free machine
MOST_HANDS = 20

SYSTEMS: Mapping[str, tuple[str, str]] = {  # the name for people, and the package
    "plain": ("a loop with a done-file", "diffusers"),
    "accelerate": ("accelerate", "accelerate"),
    "ray": ("Ray Data", "ray"),
    "daft": ("Daft", "daft"),
    "framefleet": ("framefleet", "framefleet"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a system did. seconds: to its last end. num_again: rows begun once more."""

    seconds: float
    hands: int
    num_again: int
    num_faults: int
    clips: Digests


class Run:
    """One system with a bucket of its own, a person who watches it, and a killer."""

    def __init__(self, system: str, folder: Path, proxy: FaultyS3, upstream: str, disk: Path | None) -> None:
        self._system, self._folder, self._proxy, self._disk = system, folder, proxy, disk
        server = bucket_on(upstream)
        self._bucket, self._upstream = server.url.removeprefix("s3://"), upstream
        self._env = os.environ | server.env | {"AWS_ENDPOINT_URL": proxy.endpoint, "OMP_NUM_THREADS": "1"}
        self._env |= {TRACE: str(folder / "trace"), "PYTHONPATH": str(ROOT)}
        # The disk is for temporary files: Ray's sockets and logs are elsewhere.
        self._env |= {"TMPDIR": str(disk), "RAY_TMPDIR": "/tmp"} if disk else {}
        self._started: dict[int, str] = {}  # processes, each with the time of its start
        self._well_at: float | None = None  # when store and disk will be well again

    def to_end(self, faults: Sequence[tuple[int, str]]) -> Ended:
        """Run the system until it ends well. faults: after how many rows each strikes, and its name."""
        try:
            return self._to_end(faults)
        finally:
            self._mend()
            self._kill_all()

    def _to_end(self, faults: Sequence[tuple[int, str]]) -> Ended:
        left, hands, started = list(faults), 0, time.monotonic()
        process, started_s, active_at, num_begun = self._start(), 0.0, started, 0
        while True:
            time.sleep(LOOK_S)
            if self._well_at and time.monotonic() > self._well_at:
                self._mend()
            tree = process_tree(process.pid)
            self._started |= {pid: _start_of(pid) for pid in tree if pid not in self._started}
            begun = read_trace(self._folder / "trace")
            rows = {row.seed for row in begun}
            if len(begun) > num_begun or self._well_at:
                num_begun, active_at = len(begun), time.monotonic()
            workers = [row.pid for row in begun if row.pid in tree]
            if left and len(rows) >= left[0][0] and self._strike(left[0][1], process, workers):
                left.pop(0)
            if process.poll() is None:
                if time.monotonic() - active_at > IDLE_S:
                    process.kill()
                continue
            seconds = time.monotonic() - started
            ended = f"exit {process.returncode} after {len(rows)} rows, faults to come: {left}"
            print(f"{self._system}: {ended}", file=sys.stderr, flush=True)
            if process.returncode == 0 or hands >= MOST_HANDS:
                break
            if self._well_at:
                time.sleep(max(0.0, self._well_at - time.monotonic()))
                self._mend()
            if seconds - started_s < SOON_S:
                self._kill_all()
            hands, started_s = hands + 1, time.monotonic() - started
            process, active_at = self._start(), time.monotonic()
        self._kill_all()  # before the output is read
        client = boto3.client(
            "s3", endpoint_url=self._upstream, aws_access_key_id=KEY, aws_secret_access_key=SECRET
        )
        return Ended(
            seconds=seconds,
            hands=hands,
            num_again=len(begun) - len(rows),
            num_faults=len(faults) - len(left),
            clips=digests(self._system, Bucket(client, self._bucket), self._folder),
        )

    def _start(self) -> subprocess.Popen[bytes]:
        script = ("-m", "tools.benchmarks.fire_systems", self._system, str(self._folder), self._bucket)
        launch = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(WORKERS))
        arguments = {
            "accelerate": (*launch, *script),
            "framefleet": ("-m", "framefleet", "render", str(self._job())),
        }.get(self._system, script)
        with open(self._folder / "log.txt", "ab") as log:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _job(self) -> Path:
        job = {
            "table": str(self._folder / "table.parquet"),
            "output": f"s3://{self._bucket}/{RESULTS}",
            "model": {"path": str(self._folder / "model"), "device": "cpu"},
            "recipe": "tools.chaos.traced:generate",
            "defaults": SETTINGS,
            "fleet": {"workers": WORKERS, "gpus_per_worker": 0},
        }
        path = self._folder / "job.yaml"
        path.write_text(yaml.safe_dump(job))
        return path

    def _strike(self, fault: str, process: subprocess.Popen[bytes], workers: Sequence[int]) -> bool:
        """Strike, unless there is nothing to strike or another fault lasts; return whether it did."""
        if self._well_at or process.poll() is not None or not workers:
            return False
        if fault == "worker":
            with suppress(ProcessLookupError):  # it ended meanwhile, by itself
                os.kill(workers[-1], signal.SIGKILL)
        elif fault == "driver":
            process.kill()
        elif fault == "store":
            self._proxy.goes_wrong(Fault(kind="refuse"))
            self._well_at = time.monotonic() + STORE_S
        elif self._disk:
            with open(self._disk / "filler", "wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(1 << 12)):
                    pass
            self._well_at = time.monotonic() + DISK_S
        return True

    def _mend(self) -> None:
        self._well_at = None
        self._proxy.goes_wrong(Fault())
        if self._disk:
            (self._disk / "filler").unlink(missing_ok=True)

    def _kill_all(self) -> None:
        """Kill what is left of all starts."""
        for pid, start in self._started.items():
            if start and _start_of(pid) == start:
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, signal.SIGKILL)
        self._started.clear()


def _start_of(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; "" once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def schedule(seed: int, num_rows: int, faults: Sequence[str]) -> list[tuple[int, str]]:
    """Return after how many rows each fault strikes, and its name: each in a stretch of its own."""
    chance = random.Random(seed)
    order = chance.sample(faults, len(faults))
    return [
        (max(1, round(num_rows * (place + chance.uniform(0.2, 0.8)) / len(order))), fault)
        for place, fault in enumerate(order)
    ]


def measured(systems: Sequence[str], num_rows: int, num_seeds: int) -> Iterator[Result]:
    """Yield the line of each system in the table: first alone, then with the faults of each seed."""
    with (
        tempfile.TemporaryDirectory(prefix="framefleet-fire-") as place,
        _small_disk(Path(place)) as disk,
        moto(Path(place)) as upstream,
        faulty_s3(upstream) as proxy,
    ):
        for system in systems:
            name, package = SYSTEMS[system]
            if find_spec(package) is None:
                yield {"system": name, **dict.fromkeys(COLUMNS, ""), "alone": "not installed"}
                continue
            runs: list[tuple[Ended, Counts]] = []
            for seed in range(num_seeds + 1):
                faults = schedule(seed, num_rows, FAULTS if disk else FAULTS[:-1]) if seed else []
                folder = Path(tempfile.mkdtemp(dir=place))
                ids = _write_rows(folder, num_rows)
                ended = Run(system, folder, proxy, upstream, disk).to_end(faults)
                runs.append((ended, counts(ids, ended.clips, (runs[0][0] if runs else ended).clips)))
                print(
                    f"{name}, {faults}: {_cells([runs[0], runs[-1]], len(faults))}",
                    file=sys.stderr,
                    flush=True,
                )
            yield {"system": f"{name} ({package} {version(package)})", **_cells(runs, len(faults))}


def _write_rows(folder: Path, num_rows: int) -> Sequence[str]:
    """Write the table, as one file and as many, and the model; return the ids of the rows."""
    rows = pa.Table.from_pylist(
        [
            {"id": f"{seed:06}", "prompt": f"{PROMPTS[seed % len(PROMPTS)]} {seed}", "seed": seed}
            for seed in range(num_rows)
        ]
    )
    pq.write_table(rows, folder / "table.parquet")
    (folder / "parts").mkdir()
    for first in range(0, num_rows, PART_ROWS):
        pq.write_table(rows.slice(first, PART_ROWS), folder / "parts" / f"{first:06}.parquet")
    build("wan", folder / "model")
    return rows["id"].to_pylist()


COLUMNS = ("alone", "done once", "twice", "never", "wrong bytes", "begun again", "seconds lost", "hands")


def _cells(runs: Sequence[tuple[Ended, Counts]], num_faults: int) -> Result:
    """Return cells with a value for each seed. runs: the first is the undisturbed one."""
    (alone, of_alone), *disturbed = runs
    is_whole = not (of_alone.twice or of_alone.never or of_alone.wrong)
    values = [
        (
            *(count.once, count.twice, count.never, count.wrong),
            *(ended.num_again, round(ended.seconds - alone.seconds)),
            f"{ended.hands}" + f" ({ended.num_faults} faults)" * (ended.num_faults < num_faults),
        )
        for ended, count in disturbed
    ]
    cells = [", ".join(map(str, column)) for column in zip(*values, strict=True)]
    return dict(
        zip(COLUMNS, [f"{alone.seconds:.0f} s" + f", {of_alone}" * (not is_whole), *cells], strict=False)
    )


@contextmanager
def _small_disk(place: Path) -> Iterator[Path | None]:
    """Yield a small file system, where a mount is allowed."""
    disk = place / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "tmpfs", str(disk)]
    is_there = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
    if not is_there:
        print("no disk is filled: that needs root, for a small file system", file=sys.stderr)
    try:
        yield disk if is_there else None
    finally:
        if is_there:
            subprocess.run(["umount", "--lazy", disk], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.under_fire", description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3, help="how many schedules of faults")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=[*SYSTEMS])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it started ends with it
    print(tables(measured(options.systems, options.rows, options.seeds)))


if __name__ == "__main__":
    main()
