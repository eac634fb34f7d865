"""CPU milliseconds that a row costs, by process, thread and cause; next to those of a plain loop.

    python -m tools.benchmarks.ledger [--short]

Linux only: CPU time is that of processes and threads in /proc. A render thread's is divided as the time that
workers report by cause. Other work on the machine makes a run longer, and changes these figures less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

import framefleet
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.metrics import LOAD, WORKER_SECONDS
from tools.benchmarks.bench import FULL, SETTINGS, SHORT, Scale
from tools.benchmarks.fleet import render_fleet
from tools.benchmarks.plain import PlainRenderer
from tools.benchmarks.process_tree import process_tree
from tools.benchmarks.results import tables
from tools.benchmarks.table import build_model, write_table

# By way, the way of which it remembers batch sizes.
WAYS = {"plain": None, "exact": None, "exact, remembered": "exact", "fast": None, "fast, remembered": "fast"}
_LOOK_S = 0.2
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# What a render thread is about, by what workers call it. The rest is waiting.
_CAUSES = {
    **dict.fromkeys(("denoise", "decode", "encode"), "networks"),
    "probe": "trials",
    "pipeline": "pipelines",
    "frames": "pixels",
    LOAD: "start",
}
COLUMNS = ("networks", "trials", "pipelines", "pixels", "writers", "driver", "Ray", "start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="a few rows; its figures mean nothing")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)  # of this program's own processes
    options = parser.parse_args()
    if options.run:
        way, *paths = options.run
        return print(json.dumps(_run(way, *map(Path, paths))))
    print(tables(measure_ledger(SHORT if options.short else FULL)))


def measure_ledger(scale: Scale) -> Iterator[Mapping[str, Any]]:
    """Yield what each way costs for each table, as a row for people."""
    with tempfile.TemporaryDirectory(prefix="framefleet-bench-") as scratch:
        model = build_model(Path(scratch, "model"))
        for name in scale.tables:
            rows = scale.table(name)
            table = write_table(rows, Path(scratch, f"{name}.parquet"))
            for way, earlier in WAYS.items():
                if way == "plain" or way.split(",")[0] in scale.modes:
                    print(f"{name}: {way}", file=sys.stderr, flush=True)
                    cache = Path(scratch, f"{name}-{earlier or way}")
                    costs = _costs(way, table, model, Path(scratch, name, way), cache=cache)
                    yield _cells(name, way, {what: 1000 * s / len(rows) for what, s in costs.items()})


def _cells(table: str, way: str, costs: Mapping[str, float]) -> Mapping[str, Any]:
    outside = sum(costs.values()) - costs["networks"] - costs["start"]
    numbers = {"all but start": outside + costs["networks"], "outside networks": outside}
    numbers |= {column: costs.get(column, 0.0) for column in COLUMNS}
    return {"table": table, "way": way, **{name: f"{number:.0f}" for name, number in numbers.items()}}


def _costs(way: str, table: Path, model: Path, output: Path, *, cache: Path) -> Mapping[str, float]:
    """Return the CPU seconds of one run, by column."""
    output.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.benchmarks.ledger", "--run", way, table, model, output],
        env=os.environ | SETTINGS | {"FRAMEFLEET_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    seconds: defaultdict[int, dict[int, float]] = defaultdict(dict)  # by process and thread
    commands: dict[int, bytes] = {}
    while process.poll() is None:
        for pid in process_tree(process.pid):
            _note(pid, seconds[pid], commands)
        time.sleep(_LOOK_S)
    assert process.stdout is not None
    printed = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{way}: the run ended with {process.returncode}")
    reported: dict[str, float] = json.loads(printed.splitlines()[-1])
    if way == "plain":
        return reported
    parts = Counter[str]()
    for cause, spent in reported.items():
        parts[_CAUSES.get(cause, "")] += spent
    del parts[""]
    costs: Counter[str] = Counter()
    for pid, threads in seconds.items():
        command = commands.get(pid, b"")
        if command.startswith(b"ray::Actor"):
            main = threads.pop(pid, 0.0)
            rendering = max(threads.values(), default=0.0)
            costs["start"] += main
            costs["writers"] += sum(threads.values()) - rendering
            for column, part in parts.items():
                costs[column] += rendering * part / parts.total()
        else:
            is_ray = b"ray::" in command or b"/ray/" in command
            column = "driver" if pid == process.pid else "Ray" if is_ray else "start"
            costs[column] += sum(threads.values())
    costs["driver"] -= reported["driver start"]
    costs["start"] += reported["driver start"]
    return costs


def _note(pid: int, threads: dict[int, float], commands: dict[int, bytes]) -> None:
    """Note what each thread of a process has used until now; those that have ended keep what they had."""
    try:
        commands[pid] = Path(f"/proc/{pid}/cmdline").read_bytes() or commands.get(pid, b"")
        for task in Path(f"/proc/{pid}/task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            threads[int(task.name)] = (int(fields[11]) + int(fields[12])) * _TICK_S
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended


def _run(way: str, table: Path, model: Path, output: Path) -> Mapping[str, float]:
    """Render the table; return the CPU seconds of a plain loop, or the seconds of workers by cause."""
    if way == "plain":
        return _plain(table, model, output)
    start_s = list[float]()

    def note_start(progress: framefleet.Progress) -> None:
        if progress.in_flight and not start_s:
            start_s.append(time.process_time())

    mode: Literal["exact", "fast"] = "fast" if way.startswith("fast") else "exact"
    summary = render_fleet(
        table, model, output / "out", workers=FULL.workers, mode=mode, on_progress=note_start
    )
    return {**WORKER_SECONDS.by_label(summary.figures), "driver start": start_s[0]}


def _plain(table: Path, model: Path, output: Path) -> Mapping[str, float]:
    renderer = PlainRenderer(model, output)
    seconds: Counter[str] = Counter(start=time.process_time())

    def clocked(column: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[column] += time.process_time() - started

    def network(_: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        return clocked("networks", function, *args, **kwargs)

    pipe, write = renderer.pipe, renderer._write
    networks = {"transformer": pipe.transformer, "text_encoder": pipe.text_encoder}
    with intercept(networks, network), intercept({"vae": pipe.vae}, network, method="decode"):
        renderer._write = lambda *arguments: clocked("writers", write, *arguments)  # type: ignore[method-assign]
        for row in pq.read_table(table).to_pylist():
            renderer.render([row])
    seconds["pipelines"] = time.process_time() - seconds.total()
    return seconds


if __name__ == "__main__":
    main()
