"""Seconds from a command to a plan, to nothing to do, to the first clip; compared with a diffusers script.

    python -m tools.benchmarks.start [--short]

One row of the shipped demo, on the CPU. Each round runs every way once, each in processes of its own with all
that it imports; figures are those of the fastest round. The first plan of a model asks its pipeline's class.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.plugins.demo.prepare import MODEL

ROUNDS = 3
ROW = {"prompt": "a red ball bounces on a blue background", "seed": 7}
ARGUMENTS = dict(next(one.arguments for one in PRESETS if one.name == "framefleet-shapes"))
BARE = f"""
import torch
from diffusers import WanPipeline
from diffusers.utils import export_to_gif
torch.set_num_threads(1)
pipe = WanPipeline.from_pretrained({str(MODEL)!r})
generator = torch.Generator("cpu").manual_seed({ROW["seed"]})
frames = pipe(prompt={ROW["prompt"]!r}, generator=generator, output_type="pil", **{ARGUMENTS!r}).frames[0]
export_to_gif(frames, "clip.gif", fps=16)
"""
HEADINGS = ("command", "s", "of the bare script", "CPU s", "first clip after s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """cpu_s: of the command and of what it waited for. first_s: to the first clip."""

    wall_s: float
    cpu_s: float
    first_s: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="a plan alone; its figures mean nothing")
    print(f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}", sep="\n")
    for cells in measure_start(is_short=parser.parse_args().short):
        print(f"| {' | '.join(cells)} |")


def measure_start(*, is_short: bool = False) -> list[Sequence[str]]:
    """Return the cells of a row of `HEADINGS` for each command."""
    took: dict[str, list[Took]] = {}
    with tempfile.TemporaryDirectory(prefix="framefleet-bench-") as scratch:
        for number in range(1 if is_short else ROUNDS):
            folder = Path(scratch, str(number))
            folder.mkdir()
            for way, run in _ways(folder, is_short=is_short).items():
                took.setdefault(way, []).append(run())
    best = {way: min(runs, key=lambda run: run.wall_s) for way, runs in took.items()}
    return [_cells(way, run, best.get("bare diffusers script")) for way, run in best.items()]


def _ways(folder: Path, *, is_short: bool) -> dict[str, Callable[[], Took]]:
    job = _job(folder)
    plan = {"plan": lambda: _run(folder, "-m", "framefleet", "plan", job)}
    if is_short:
        return plan
    render = ("-m", "framefleet", "render", job)
    return {
        "bare diffusers script": lambda: _run(folder, "-c", BARE, clips="clip.gif"),
        **plan,
        "render of one row": lambda: _run(folder, *render, clips="out/clips/*/*.mp4"),
        "render with nothing to do": lambda: _run(folder, *render),
    }


def _job(folder: Path) -> str:
    (folder / "table.csv").write_text(f"prompt,seed\n{ROW['prompt']},{ROW['seed']}\n")
    values = {
        "table": str(folder / "table.csv"),
        "output": str(folder / "out"),
        "model": {"path": str(MODEL), "device": "cpu"},
        "fleet": {"workers": 2, "gpus_per_worker": 0},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "job.yaml")


def _run(folder: Path, *arguments: str, clips: str | None = None) -> Took:
    before, started = _cpu_s(), time.monotonic()
    first_s = None
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        if clips and first_s is None and any(folder.glob(clips)):
            first_s = time.monotonic() - started
        time.sleep(0.02)
    wall_s = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return Took(wall_s=wall_s, cpu_s=_cpu_s() - before, first_s=first_s)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cells(way: str, took: Took, bare: Took | None) -> Sequence[str]:
    return [
        way,
        f"{took.wall_s:.1f}",
        f"{took.wall_s / bare.wall_s:.2f}" if bare else "",
        f"{took.cpu_s:.1f}",
        f"{took.first_s:.1f}" if took.first_s else "",
    ]


if __name__ == "__main__":
    main()
