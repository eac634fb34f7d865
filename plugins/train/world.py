"""Several processes that train one task together, with equal gradients in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, distributed as dist, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from framefleet.plugins.train.task import Prepared, TrainingTask

Loss = Callable[[Sequence[Prepared], torch.Generator], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes that train together, in torch's process group if there are several. rank: this one's."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this process writes the results of all."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def first_says(self, condition: Callable[[], bool]) -> bool:
        """Return in all processes what the first one finds."""
        value = torch.tensor(float(self.is_first and condition()), device=self.device)
        return self.mean(value).item() > 0

    def wait(self) -> None:
        if self.size > 1:
            self.mean(torch.zeros((), device=self.device)).item()  # NCCL lets the host go on at once


class SharedLoss:
    """The task's loss. After the last of a step's backward passes, gradients are the mean of all processes'.

    ddp: each process has all weights. fsdp: each has a share of every weight (FSDP2).
    """

    def __init__(self, task: TrainingTask, strategy: Literal["ddp", "fsdp"], world: World) -> None:
        self._loss: Loss = task.loss
        self._replicas: DistributedDataParallel | None = None
        if world.size > 1 and strategy == "fsdp":
            # Said, or FSDP takes a GPU that the machine has and these processes were not given.
            mesh = init_device_mesh(world.device.type, (world.size,))
            for module in task.trained.values():
                # Each block of a component's lists is gathered only while it computes.
                for block in _blocks(module):
                    fully_shard(block, mesh=mesh)
                fully_shard(module, mesh=mesh)
        elif world.size > 1:
            # An expert that no row of the batch needs has no gradient.
            self._replicas = DistributedDataParallel(_Forward(task), find_unused_parameters=True)
            self._loss = self._replicas

    def __call__(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        return self._loss(batch, generator)

    def syncing(self, *, now: bool) -> AbstractContextManager[None]:
        """Around a forward and a backward: gradients are exchanged only where it is `now`."""
        return nullcontext() if now or self._replicas is None else self._replicas.no_sync()


class _Forward(nn.Module):
    """What DDP hooks into: a module whose forward is the task's loss."""

    def __init__(self, task: TrainingTask) -> None:
        super().__init__()
        self._task = task
        self.trained = nn.ModuleDict(dict(task.trained))

    def forward(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        return self._task.loss(batch, generator)


def _blocks(module: nn.Module) -> Iterable[nn.Module]:
    """Yield the members of the outermost lists."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)


def reshard(modules: Iterable[nn.Module]) -> None:
    """Let go of what FSDP put together for the last forward, and would take for the next as well."""
    for module in modules:
        if isinstance(module, FSDPModule):
            module.reshard()


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return all of a tensor that may be shared out; every process must call this."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    return tensor


def shared_as(like: Tensor, value: Tensor) -> Tensor:
    """Return this process's share of `value`, as `like` is shared out."""
    value = value.to(like.device)
    if isinstance(like, DTensor):
        # Each process has all of it, so nothing need be sent.
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return value


def weights_by_name(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return the weights of components, by names as `transformer.blocks.0.attn1.to_q.weight`."""
    return {
        f"{component}.{name}": weight
        for component, module in modules.items()
        for name, weight in module.named_parameters()
    }
