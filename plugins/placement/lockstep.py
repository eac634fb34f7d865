"""One network that several processes compute together: each has its weights and a part of the tokens.

What each of them does; `ranks.py` starts the processes. diffusers' Ulysses moves heads between them and adds
nothing in another order.
"""

from __future__ import annotations

import datetime
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

import torch
import torch.distributed as dist
from accelerate import init_empty_weights
from diffusers import ContextParallelConfig
from torch import Tensor, nn
from torch._C._distributed_c10d import FileStore, PrefixStore

from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.model.numerics import Numerics

# Two ranks meet at each attention, so this is for one block: a rank that takes longer is stopped.
TIMEOUT = datetime.timedelta(seconds=120)
# Smaller tensors, and those of other devices, go with the message.
_LARGE_BYTES = 2**14
_ALIGNMENT = 64  # bytes, of a processor's widest registers


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSetup:
    """What a rank needs to join."""

    rank: int
    size: int
    store: str  # a file in the worker's memory, by which ranks find each other
    group: int  # how many had the same file before
    device: str
    numerics: Numerics
    is_uneven: bool = False  # lengths that the number of ranks does not divide may come

    def join(self) -> None:
        backend = "nccl" if self.device.startswith("cuda") and dist.is_nccl_available() else "gloo"
        store = PrefixStore(str(self.group), FileStore(self.store, self.size))
        store.set_timeout(TIMEOUT)
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=TIMEOUT)


@dataclass(frozen=True, slots=True)
class _Large:
    """A tensor that follows the message."""

    shape: tuple[int, ...]
    strides: tuple[int, ...] | None  # None: contiguous
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that is to follow. address: modulo `_ALIGNMENT`, on which a CPU's kernels depend."""

    shape: torch.Size
    dtype: torch.dtype
    address: int

    @classmethod
    def of(cls, weight: Tensor) -> Self:
        is_here = weight.device.type == "cpu"
        return cls(weight.shape, weight.dtype, weight.data_ptr() % _ALIGNMENT if is_here else 0)

    def blank(self, device: torch.device) -> Tensor:
        if device.type != "cpu":
            return torch.empty(self.shape, dtype=self.dtype, device=device)
        num_bytes = self.shape.numel() * self.dtype.itemsize
        buffer = torch.empty(num_bytes + _ALIGNMENT, dtype=torch.uint8, device=device)
        begin = (self.address - buffer.data_ptr()) % _ALIGNMENT // self.dtype.itemsize * self.dtype.itemsize
        return buffer[begin : begin + num_bytes].view(self.dtype).view(self.shape)


def message(value: Any, device: torch.device) -> tuple[bytes, list[Tensor]]:
    """Return a value as bytes, and its tensors that follow, from the device."""
    leaves, structure = flatten(value)
    noted: list[Any] = []
    large: list[Tensor] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.device == device and leaf.nbytes > _LARGE_BYTES:
            large.append(leaf)
            noted.append(_Large(tuple(leaf.shape), None if 0 in leaf.stride() else leaf.stride(), leaf.dtype))
        else:
            noted.append(leaf.detach().clone() if isinstance(leaf, Tensor) else leaf)
    return pickle.dumps((noted, structure)), large


def received(content: bytes, device: torch.device) -> Any:
    """Return the value of a message, once its tensors have followed."""
    noted, structure = pickle.loads(content)  # of our own process
    leaves = []
    for leaf in noted:
        if isinstance(leaf, _Large):
            tensor = torch.empty(leaf.shape, dtype=leaf.dtype, device=device)
            broadcast(tensor)
            if leaf.strides is not None:  # kernels are chosen by them
                strided = torch.empty_strided(leaf.shape, leaf.strides, dtype=leaf.dtype, device=device)
                tensor = strided.copy_(tensor)
            leaves.append(tensor)
        else:
            is_elsewhere = isinstance(leaf, Tensor) and leaf.device.type == "cuda"
            leaves.append(leaf.to(device) if is_elsewhere else leaf)
    return unflatten(structure, leaves)


def broadcast(tensor: Tensor) -> None:
    """Give rank 0's values to all; the others pass a contiguous tensor, which gets them."""
    plain = tensor.detach().contiguous()
    plain = torch.view_as_real(plain) if plain.is_complex() else plain
    dist.broadcast(plain.reshape(-1).view(torch.uint8), src=0)


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def parallel(network: Any, setup: RankSetup) -> Any:
    """Have a network compute its part; return it."""
    config = ContextParallelConfig(ulysses_degree=setup.size, ulysses_anything=setup.is_uneven)
    count = torch.accelerator.device_count
    if not count():  # where there is none, diffusers divides by their number
        torch.accelerator.device_count = lambda: 1
    try:
        network.enable_parallelism(config=config)
    finally:
        torch.accelerator.device_count = count
    return network


def compute_until_closed(connection: Connection) -> None:
    """Be a rank other than the first, until the other end is closed."""
    group: RankSetup = pickle.loads(connection.recv_bytes())
    group.numerics.apply()
    device = torch.device(group.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    blanks: Mapping[str, tuple[type[Any], Mapping[str, Any]]] = pickle.loads(connection.recv_bytes())
    with init_empty_weights():
        networks = {name: kind.from_config(dict(config)) for name, (kind, config) in blanks.items()}
    connection.send_bytes(b"")  # it is there
    group.join()
    for network in networks.values():
        for name, weight_of in pickle.loads(connection.recv_bytes()).items():
            weight = weight_of.blank(device)
            broadcast(weight)
            path, _, own = name.rpartition(".")
            module = network.get_submodule(path)
            if own in module._parameters:
                module._parameters[own] = nn.Parameter(weight, requires_grad=False)
            else:
                module._buffers[own] = weight
        parallel(network.eval(), group)
    with torch.no_grad():
        while True:
            name = connection.recv_bytes().decode()
            args, kwargs = received(connection.recv_bytes(), device)
            networks[name](*args, **kwargs)
