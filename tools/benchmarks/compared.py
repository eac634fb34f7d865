"""framefleet next to short scripts with Ray Data and accelerate: what each does when something goes wrong.

    python -m tools.benchmarks.compared [--only NAME ...]

The same six rows of a tiny model by each, on two CPU workers: with a row that the model refuses, and with
weights that change. Prints how a run ended, and what is in the output then. Kills are in under_fire.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors.torch import load_file, save_file

from tests.jobs import ROOT
from tests.tiny import SMALLEST, tiny
from tools.benchmarks.results import Result, tables

NUM_ROWS, NUM_FIRST = 6, 3  # of the table, and of what runs before weights change
_BAD_HEIGHT = 17  # the model wants multiples of 16
_LIMIT_S = 300
_MAX_SHOWN = 4_000  # characters of a log
_MOST_STARTS = 3
# Ray's waits of 30 s, for which it has no setting: a busy machine may need longer.
_SLOW_START = re.compile("timed out during startup|while waiting for node to startup|waiting for node info")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. num_done: rows with a record; num_failed: rows that are noted as failed."""

    exit_code: int
    num_done: int
    num_failed: int
    seconds: float

    def __str__(self) -> str:
        failed = f", {self.num_failed} noted as failed" if self.num_failed else ""
        return f"exit {self.exit_code}, {self.num_done} of {NUM_ROWS} done{failed}"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to render a table."""

    command: Callable[[Path, Path, Path], Sequence[str | Path]]  # of a folder, a table and a model
    num_lines: int


def _framefleet(folder: Path, table: Path, model: Path) -> Sequence[str | Path]:
    (folder / "job.yaml").write_text(yaml.safe_dump(_job(folder, table, model)))
    return [sys.executable, "-m", "framefleet", "render", folder / "job.yaml"]


def _job(folder: Path, table: Path, model: Path) -> dict[str, Any]:
    return {
        "table": str(table),
        "output": str(folder / "out"),
        "model": {"path": str(model), "device": "cpu"},
        "fleet": {"workers": 2, "gpus_per_worker": 0},
    }


def _lines(*names: str) -> int:
    """Count lines of code of scripts in examples/."""
    texts = "\n".join((ROOT / "examples" / name).read_text("utf-8") for name in names)
    return sum(bool(line.strip()) for line in texts.splitlines())


def _script(name: str, *before: str | Path) -> Callable[[Path, Path, Path], Sequence[str | Path]]:
    script = ROOT / "examples" / name
    return lambda folder, table, model: [
        *before,
        *(script, table, "--model", model, "--output", folder / "out"),
    ]


_LAUNCH = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
WAYS: Mapping[str, Way] = {
    "Ray Data": Way(
        _script("ray_data_baseline.py", sys.executable),
        _lines("plain_rows.py", "ray_data_baseline.py"),
    ),
    "accelerate": Way(
        _script("accelerate_baseline.py", *_LAUNCH),
        _lines("plain_rows.py", "accelerate_baseline.py"),
    ),
    "framefleet": Way(_framefleet, yaml.safe_dump(_job(Path(), Path(), Path())).count("\n")),
}


@dataclass
class Case:
    """One way in one situation: a folder, a table and a model of its own."""

    way: Way
    folder: Path

    def __post_init__(self) -> None:
        self.model, self.table, self.out = (self.folder / name for name in ("model", "t.parquet", "out"))
        shutil.copytree(tiny("wan"), self.model)
        self.write()

    def write(self, num_rows: int = NUM_ROWS, **changed: Any) -> None:
        """Write the table. changed: columns of its last row."""
        rows = [
            {**SMALLEST["wan"], "max_sequence_length": 32, "prompt": f"a ball {seed}", "seed": seed}
            for seed in range(num_rows)
        ]
        rows[-1] |= changed
        pq.write_table(pa.Table.from_pylist(rows), self.table)

    def run(self) -> Ended:
        """Run the command to its end.

        Where Ray did not start in time, which says nothing of a script, the command is run again.
        """
        for _ in range(_MOST_STARTS):
            ended = self._run_once()
            log = (self.folder / "log.txt").read_text(errors="replace")
            if ended.exit_code == 1:
                print(log[-_MAX_SHOWN:], file=sys.stderr)
            if ended.exit_code == 0 or not _SLOW_START.search(log):
                break
        return ended

    def _run_once(self) -> Ended:
        started, env = time.monotonic(), os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with open(self.folder / "log.txt", "wb") as log:
            process = subprocess.Popen(
                [*map(str, self.way.command(self.folder, self.table, self.model))],
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                process.wait(_LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return Ended(process.returncode, *self._counts(), time.monotonic() - started)

    def _counts(self) -> tuple[int, int]:
        if self.way is WAYS["framefleet"]:
            if not self.out.exists():
                return 0, 0
            import framefleet

            status = framefleet.status(str(self.out))
            return status.num_done, status.num_failed
        names = ("records", "failures")
        done, failed = ({path.stem for path in (self.out / name).glob("[!.]*.json")} for name in names)
        return len(done), len(failed - done)


def _bad_row(case: Case) -> str:
    case.write(height=_BAD_HEIGHT)
    ended = case.run()
    return f"{ended}, after {ended.seconds:.0f} s"


def _weights_change(case: Case) -> str:
    case.write(NUM_FIRST)
    case.run()
    file = case.model / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: weight * 1.01 for name, weight in load_file(file).items()}, file, {"format": "pt"})
    case.write()
    return str(case.run())


SITUATIONS: Mapping[str, tuple[str, Callable[[Case], str]]] = {
    "row": ("a row has a height that the model refuses", _bad_row),
    "weights": ("after half of the rows, the weights change", _weights_change),
}


def outcomes(name: str) -> Iterator[tuple[str, str]]:
    """Yield what each way does in one situation."""
    for way in WAYS:
        with tempfile.TemporaryDirectory(prefix="framefleet-bench-") as folder:
            yield way, SITUATIONS[name][1](Case(WAYS[way], Path(folder)))


def measured(names: Sequence[str]) -> Iterator[Result]:
    """Yield a line for each situation, and first the lines of code."""
    lines = {way: f"{one.num_lines} lines" for way, one in WAYS.items()}
    yield {"what happens": "written for it", **lines}
    for name in names:
        yield {"what happens": SITUATIONS[name][0], **dict(outcomes(name))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.compared", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SITUATIONS, default=[*SITUATIONS])
    print(tables(measured(parser.parse_args().only)))


if __name__ == "__main__":
    main()
