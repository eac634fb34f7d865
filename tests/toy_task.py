"""A task small enough for unit tests: a dropout and two linear layers that learn to double."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.plugins.train.dataset.batches import Batches, TrainingRows
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.task import Bucket, Prepared, TrainingRow


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
