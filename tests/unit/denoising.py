"""A tiny denoiser without diffusers, and recipes that call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from framefleet import Batching
from framefleet.pipeline.render.fused.batcher import Batcher, RowTask
from framefleet.pipeline.render.fused.forwards import Forwards


class Denoiser(nn.Module):
    """Halves its input, adds time and table; notes the rows of every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []
        self.max_rows = 100
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, latents: Tensor, timestep: Tensor, table: Tensor | None = None) -> Tensor:
        self.rows.append(latents.shape[0])
        if latents.shape[0] > self.max_rows:
            raise torch.OutOfMemoryError(f"{latents.shape[0]} rows do not fit")
        if (latents == 13).any():
            raise ValueError("13 cannot be denoised")
        output = latents * self.weight + timestep.reshape(-1, 1)
        return output if table is None else output + table.sum()


def batcher_of(denoiser: nn.Module, **batching: Any) -> Batcher:
    return Batcher(Forwards({"unet": denoiser}, Batching(**{"min_gain": 0, **batching})))


def steps(denoiser: nn.Module, start: float, num_steps: int = 3, table: Tensor | None = None) -> float:
    latents = torch.full((1, 4), start)
    for step in range(num_steps):
        latents = denoiser(latents, torch.tensor(float(step)), table)
    return latents[0, 0].item()


def render(batcher: Batcher, *functions: Callable[[], Any]) -> list[RowTask]:
    tasks = [batcher.start(RowTask(function)) for function in functions]
    while batcher.tasks:
        batcher.step()
    return tasks


def alone(*arguments: Any) -> float:
    with torch.no_grad():
        return steps(Denoiser(), *arguments)
