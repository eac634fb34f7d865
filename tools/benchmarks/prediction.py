"""What `framefleet plan --probe` says of a table on the shipped model, and what rendering it then takes.

    python -m tools.benchmarks.prediction [--rows 240] [--lengths 9 17] [--short]

Two CPU workers. Where others are at work on the machine, compare seconds of processors: those by the clock
are theirs as well. Rows of the table differ in seed, steps, guidance and length.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

import framefleet
from framefleet.plugins.demo.prepare import MODEL
from tests.jobs import records_of, worker_pids

PROMPTS = (
    "a red ball bounces on a blue background",
    "一个黄色的星星在紫色背景上变大",
    "a green square moves left on a white background",
    "a white ring grows on black",
)
STEPS, GUIDANCE = (4, 6, 8), (1.0, 2.5, 4.0, 7.0)
HEADINGS = ("", "predicted", "run", "predicted / run")
POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """elapsed_s: by the clock, of the command. cpu_s: of its workers' processes, after their imports."""

    elapsed_s: float
    cpu_s: float
    num_bytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--lengths", type=int, nargs="+", default=[9, 17], help="in frames; a shape for each")
    parser.add_argument("--short", action="store_true", help="a few rows; its figures mean nothing")
    asked = parser.parse_args()
    print(f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}", sep="\n")
    for cells in measure_prediction(8 if asked.short else asked.rows, asked.lengths, is_short=asked.short):
        print(f"| {' | '.join(cells)} |")


def measure_prediction(
    num_rows: int, lengths: Sequence[int], *, is_short: bool = False
) -> list[Sequence[str]]:
    """Return the cells of a row of `HEADINGS` for each figure."""
    with tempfile.TemporaryDirectory(prefix="framefleet-bench-") as scratch:
        job = write_job(Path(scratch), num_rows, lengths, steps=(2,) if is_short else STEPS)
        said = framefleet.plan(job, probe=True).prediction
        assert said is not None
        predicted = Took(elapsed_s=said.elapsed_s, cpu_s=said.cpu_s, num_bytes=said.num_bytes)
        run = _run(job)
    return [
        _cells("CPU s of workers", predicted.cpu_s, run.cpu_s),
        _cells("s by the clock", predicted.elapsed_s, run.elapsed_s),
        _cells("MB of clips", predicted.num_bytes / 1e6, run.num_bytes / 1e6),
    ]


def write_job(folder: Path, num_rows: int, lengths: Sequence[int], *, steps: Sequence[int]) -> Path:
    """Write a table for the shipped model, and its job; return the job's path."""
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "seed", "num_inference_steps", "guidance_scale", "num_frames"])
        for number in range(num_rows):
            guidance = GUIDANCE[number // len(steps) % len(GUIDANCE)]
            frames = lengths[number // 12 % len(lengths)]  # each with all steps and guidance
            prompt = PROMPTS[number % len(PROMPTS)]
            writer.writerow([prompt, number, steps[number % len(steps)], guidance, frames])
    values = {
        "table": str(folder / "table.csv"),
        "output": str(folder / "out"),
        "model": {"path": str(MODEL), "device": "cpu"},
        "fleet": {"workers": 2, "gpus_per_worker": 0},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(values))
    return folder / "job.yaml"


def _run(job: Path) -> Took:
    """Render it by the command; look at its workers as long as they are there."""
    started, used = time.monotonic(), dict[int, float]()
    process = subprocess.Popen(
        [sys.executable, "-m", "framefleet", "render", str(job)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        used |= {pid: seconds for pid in worker_pids(os.getpid()) if (seconds := _cpu_s(pid)) is not None}
        time.sleep(POLL_S)
    if process.returncode:
        raise SystemExit(f"render ended with {process.returncode}")
    num_bytes = sum(path.stat().st_size for path in (job.parent / "out" / "clips").rglob("*.mp4"))
    assert records_of(job.parent / "out")
    return Took(elapsed_s=time.monotonic() - started, cpu_s=sum(used.values()), num_bytes=num_bytes)


def _cpu_s(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cells(name: str, predicted: float, run: float) -> Sequence[str]:
    return [name, f"{predicted:.2f}", f"{run:.2f}", f"{predicted / run:.2f}" if run else ""]


if __name__ == "__main__":
    main()
