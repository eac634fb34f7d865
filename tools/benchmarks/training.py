"""Memory and time of a training step: fp32 and bf16, with gradient checkpointing and without.

    python -m tools.benchmarks.training                  # a Wan transformer of 20 M parameters, on the CPU
    python -m tools.benchmarks.training --device cuda    # one as large as Wan 2.1's of 1.3 B
    python -m tools.benchmarks.training --short          # of two layers: shows that it still runs

Random weights; each case in a process of its own, and all of them in one run, to be compared with the first.
The step's memory, with gradients, is its peak less what is held between steps: weights, optimizer, libraries.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import WanTransformer3DModel

from framefleet.pipeline.model.numerics import Numerics
from framefleet.plugins.train.denoiser.task import DenoiserTask
from framefleet.plugins.train.freezing import choose_parameters
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.learner import Learner
from framefleet.plugins.train.task import Bucket, TrainingRow
from framefleet.plugins.train.world import World
from tests.tinies.encoders import TEXT_WIDTH
from tests.tinies.wan import CHANNELS, wan
from tools.benchmarks.command_line import parsed, parser_of

WARM_UP = 1  # it makes the optimizer's state
CASES = {
    f"{precision}{', checkpointing' if is_on else ''}": {
        "precision": precision,
        "gradient_checkpointing": is_on,
    }
    for precision in ("fp32", "bf16")
    for is_on in (False, True)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    layers: int
    heads: int
    head_dim: int
    bucket: Bucket
    batch_size: int


HEADINGS = ("case", "CPU s a step", "of fp32", "MiB of a step", "of fp32", "MiB held", "loss")
SIZES = {
    "short": Size(
        layers=2,
        heads=2,
        head_dim=12,
        bucket=Bucket(num_frames=5, height=16, width=16),
        batch_size=1,
    ),
    "cpu": Size(
        layers=8,
        heads=6,
        head_dim=64,
        bucket=Bucket(num_frames=17, height=128, width=128),
        batch_size=2,
    ),
    "cuda": Size(
        layers=30,
        heads=12,
        head_dim=128,
        bucket=Bucket(num_frames=33, height=480, width=832),
        batch_size=1,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    seconds: float  # of the fastest step; on a CPU those of its one thread
    held_bytes: int
    peak_bytes: int
    loss: float


def measure(case: str, size: Size, device: torch.device, *, steps: int) -> Measured:
    """Train for some steps on random clips."""
    Numerics(threads=1).apply()
    torch.manual_seed(0)
    settings = TrainSettings(steps=WARM_UP + steps, batch_size=size.batch_size, **CASES[case])
    pipe = wan()
    width = size.heads * size.head_dim
    pipe.register_modules(
        transformer=WanTransformer3DModel(
            num_layers=size.layers,
            num_attention_heads=size.heads,
            attention_head_dim=size.head_dim,
            ffn_dim=4 * width,
            text_dim=TEXT_WIDTH,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
        )
    )
    task = DenoiserTask(pipe.to(device), settings)
    choose_parameters(task.trained)
    rows = [task.prepare(row, _clip(row)) for row in _rows(size)]
    learner = Learner(task, settings, World(device=device))
    for step in range(WARM_UP):
        learner.learn(step, [rows])
    held = _held(device)
    _forget_peak(device)
    times = [_now(device)]
    for step in range(steps):
        loss = learner.learn(WARM_UP + step, [rows]).loss
        times.append(_now(device))
    fastest = min(after - before for before, after in pairwise(times))
    return Measured(seconds=fastest, held_bytes=held, peak_bytes=_peak(device), loss=loss)


def _rows(size: Size) -> list[TrainingRow]:
    arguments = {"prompt": "a ball", "max_sequence_length": 64}
    return [
        TrainingRow(index=index, video="", sha256="", arguments=arguments, bucket=size.bucket)
        for index in range(size.batch_size)
    ]


def _clip(row: TrainingRow) -> np.ndarray:
    shape = (row.bucket.num_frames, row.bucket.height, row.bucket.width, 3)
    return np.random.default_rng(row.index).integers(0, 256, shape, dtype=np.uint8)


def _now(device: torch.device) -> float:
    """Of a CPU its own seconds: others may use it too."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _held(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed
    return _status("VmRSS")


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=2, help="that are measured")
    parser.add_argument("--short", action="store_true", help="a toy; its figures mean nothing")
    parser.add_argument("--case", choices=CASES, help="this one alone, as JSON")
    options = parsed(parser)
    device = torch.device(options.device)
    size = SIZES["short" if options.short else device.type]
    if options.case:
        print(json.dumps(asdict(measure(options.case, size, device, steps=options.steps))))
        return
    first: Measured | None = None
    print(f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}", sep="\n")
    for case in CASES:
        alone = not options.short
        found = _measured_alone(case) if alone else measure(case, size, device, steps=options.steps)
        first = first or found
        print(_line(case, found, first), flush=True)


def _measured_alone(case: str) -> Measured:
    command = [sys.executable, "-m", "tools.benchmarks.training", *sys.argv[1:], "--case", case]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(run.stdout.splitlines()[-1]))


def _line(case: str, found: Measured, first: Measured) -> str:
    own, others = (measured.peak_bytes - measured.held_bytes for measured in (found, first))
    return (
        f"| {case} | {found.seconds:.2f} | x {found.seconds / first.seconds:.2f} | {own / 2**20:,.0f} | "
        f"x {own / others:.2f} | {found.held_bytes / 2**20:,.0f} | {found.loss:.4f} |"
    )


if __name__ == "__main__":
    main()
