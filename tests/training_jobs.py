"""Training jobs for tests: a few tiny clips, a job on a tiny model, and what the run comes to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.plugins.train.dataset.batches import Batches, TrainingRows
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.task import Bucket, Prepared, TrainingRow
from tests.jobs import write_job, write_table
from tests.tiny import tiny
from tests.warm.process import start

SIZE = (5, 16, 16)  # of the tiny Wan
NUM_CLIPS = 8


def write_clips(folder: Path, *, count: int = NUM_CLIPS, size: tuple[int, int, int] = SIZE) -> Path:
    """Write a table of clips, each a square on a plain background."""
    random, rows = np.random.default_rng(0), []
    for number in range(count):
        frames = np.empty((*size, 3), np.uint8)
        frames[:] = random.integers(0, 255, 3)
        frames[:, 4:10, 2:8] = random.integers(0, 255, 3)
        name = f"{number}.mkv"
        (folder / name).write_bytes(encode(frames, media=Media(format="mkv"), fps=8, metadata={}))
        rows.append({"video": name, "prompt": f"square {number}", "paraphrase": f"方块 {number}"})
    return write_table(folder / "clips.parquet", rows)


def training_job(folder: Path, output: str = "out", **train: Any) -> Path:
    """Write a job on the tiny Wan that every part of a training has its share in; return its path."""
    values = {
        "table": str(folder / "clips.parquet"),
        "output": str(folder / output),
        "model": str(tiny("wan")),
        "defaults": {"max_sequence_length": 32},
        "train": {
            "steps": 6,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "sizes": [list(SIZE)],
            "ema": 0.9,
            "checkpoint_every": 2,
            **train,
        },
    }
    return write_job(folder / f"{output}.yaml", values)


def start_training(job: Path, *sets: str) -> subprocess.Popen[str]:
    return start("-m", "framefleet.jobs.cli", "train", job, *(f"--set={text}" for text in sets))


def trained_weights(output: Path, component: str = "transformer") -> dict[str, Tensor]:
    """Return the weights of a component of `model/`."""
    (file,) = (output / "model" / component).glob("*.safetensors")
    return safetensors.torch.load_file(file)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Tell whether these are the same weights, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class ToyTask:
    """Rows are {"x": four numbers}; the loss draws noise from its generator and from the global one."""

    keeps_prepared = True

    def __init__(self, noise: float = 0.1) -> None:
        self._noise = noise
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 4))

    @property
    def trained(self) -> Mapping[str, nn.Module]:
        return {"net": self.net}

    def prepare(self, row: TrainingRow, frames: Frames | None) -> Prepared:
        return {"x": torch.full((4,), float(row.index))}

    def loss(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        x = torch.stack([row["x"] for row in batch])
        x = x + self._noise * torch.randn(x.shape, generator=generator)
        return (self.net(x) - 2 * x).square().mean()


def toy_batches(step: int, *, count: int = 1, size: int = 4) -> list[list[Prepared]]:
    generator = torch.Generator().manual_seed(step)
    return [[{"x": torch.randn(4, generator=generator)} for _ in range(size)] for _ in range(count)]


def settings(**more: Any) -> TrainSettings:
    return TrainSettings(**{"steps": 8, "learning_rate": 0.01, **more})


def batches_of(
    buckets: Sequence[Bucket], *, world_size: int = 1, repeats: int | Sequence[int] = 1, **more: Any
) -> Batches:
    """Return the batches of rows of these buckets. repeats: of each row, or of all."""
    counts = [repeats] * len(buckets) if isinstance(repeats, int) else repeats
    rows = TrainingRows(
        TrainingRow(index=i, video=None, sha256=None, arguments={}, bucket=bucket, repeats=count)
        for i, (bucket, count) in enumerate(zip(buckets, counts, strict=True))
    )
    return Batches(rows, settings(**more), world_size=world_size)


def descend(
    task: Any, rows: list[Prepared], weights: Iterable[nn.Parameter], *, steps: int, rate: float = 3e-3
) -> list[float]:
    """Train on always the same noise; return the losses."""
    optimizer = torch.optim.AdamW(weights, lr=rate)
    losses = []
    for _ in range(steps):
        loss = task.loss(rows, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
