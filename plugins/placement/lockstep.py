"""One network that several processes compute together: each has its weights and a part of the tokens.

diffusers' Ulysses moves heads between them and adds nothing in another order. The processes belong to one
worker, which computes with them, and end when it ends. A group that has failed is closed, and the next call
starts a new one. But if one of its processes died or stopped, the worker's process must end too, as nobody
knows why.
"""

from __future__ import annotations

import copy
import datetime
import logging
import os
import pickle
import re
import subprocess
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, ClassVar, Self

import torch
import torch.distributed as dist
from accelerate import init_empty_weights
from diffusers import ContextParallelConfig
from torch import Tensor, nn
from torch._C._distributed_c10d import FileStore, PrefixStore

from framefleet.api.errors import OutOfMemory
from framefleet.api.texts import python
from framefleet.pipeline.errors import BrokenWorker
from framefleet.pipeline.guards.own_python import module_path
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.model.numerics import Numerics

log = logging.getLogger(__name__)

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
    is_uneven: bool = False  # lengths or heads that the number of ranks does not divide may come

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
    modules = dict(network.named_modules())
    # The plan of Helios names 40 blocks, however many there are.
    plan = {
        path: part
        for path, part in network._cp_plan.items()
        if path in modules or not re.search(r"\.\d+(\.|$)", path)
    }
    try:
        network.enable_parallelism(config=config, cp_plan=plan)
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


_START_S = 300.0  # for a process to import its libraries, on a machine where many do
_CAUSE_S = 2.0  # for a rank to say what it raised


class Ranks:
    """This process and `size - 1` others, which start when a call needs them.

    A process is in one group at a time: the next one to start closes the others of the one before.
    """

    _in_group: ClassVar[Ranks | None] = None

    def __init__(self, networks: Mapping[str, Any], *, size: int, device: str, numerics: Numerics) -> None:
        self._networks, self.size, self._numerics = networks, size, numerics
        self._device = device
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self.twins: dict[str, Any] = {}  # what computes this process's part of each network
        self._versions: list[tuple[int, int]] = []
        self._store: int | None = None  # a file's number. Never closed: torch writes to it later
        self._num_groups = 0
        self._is_broken = False
        heads = [getattr(network.config, "num_attention_heads", size) for network in networks.values()]
        self._is_uneven = any(count % size for count in heads)
        self.failed_in = ""  # the innermost module of this process's part whose call failed last

    def __call__(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Compute a network's forward together. Raises BrokenWorker where a rank died or stopped."""
        try:
            if self._versions != self._weights_now():
                self.close()
            if not self.twins:
                self._start()
            content, large = message((args, kwargs), self._own_device)
            for connection in self._connections:
                connection.send_bytes(name.encode())
                connection.send_bytes(content)
            for tensor in large:
                broadcast(tensor)
            return self.twins[name](*args, **kwargs)
        except Exception as error:
            self.failed_in = _module_of(error, name, self.twins.get(name))
            cause = self._cause(error)
            self.close()
            if not self._is_uneven and "must be divisible" in str(cause):  # slower: ranks exchange lengths
                self._is_uneven = True
                return self(name, *args, **kwargs)
            self._is_broken = isinstance(cause, BrokenWorker)
            if cause is error:
                raise
            raise cause from error
        except BaseException:  # a row was ended in the midst of a call
            self.close()
            raise

    def check(self) -> None:
        """Raise BrokenWorker if a rank has died or stopped in an earlier call."""
        if self._is_broken:
            raise BrokenWorker("a rank of this worker has died", "see its log")

    def close(self) -> None:
        """End the other processes."""
        for process in self._processes:
            process.kill()
            process.wait()
        for connection in self._connections:
            connection.close()
        if Ranks._in_group is self:
            Ranks._in_group = None
            if dist.is_initialized():  # not where joining failed
                dist.destroy_process_group()
        self._processes, self._connections, self.twins = [], [], {}

    @staticmethod
    def start_process(connection: Connection) -> subprocess.Popen[Any]:
        """Start a rank, which listens at the connection: its standard input."""
        command = python("-m", "framefleet.plugins.placement.rank", str(os.getpid()))
        environment = os.environ | {"PYTHONPATH": module_path()}
        return subprocess.Popen(command, stdin=connection.fileno(), env=environment)

    @property
    def _own_device(self) -> torch.device:
        return torch.empty(0, device=self._device).device

    def _weights_now(self) -> list[tuple[int, int]]:
        """Return what changes when weights do, which the other ranks then have to get."""
        weights = (weight for network in self._networks.values() for weight in tensors_of(network).values())
        return [(id(weight), weight._version) for weight in weights]

    def _start(self) -> None:
        if Ranks._in_group:
            Ranks._in_group.close()
        Ranks._in_group = self
        log.info("starting further processes: %d", self.size - 1)
        if self._store is None:
            self._store = os.memfd_create("ranks")  # which only this user can open, and nobody has to delete
        self._num_groups += 1
        is_cuda = self._device.startswith("cuda")
        own = RankSetup(
            rank=0,
            size=self.size,
            store=f"/proc/{os.getpid()}/fd/{self._store}",
            group=self._num_groups,
            device=str(self._own_device),
            numerics=self._numerics,
            is_uneven=self._is_uneven,
        )
        blanks = {name: (type(network), dict(network.config)) for name, network in self._networks.items()}
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        for rank in range(1, self.size):
            ours, theirs = Pipe()
            self._processes.append(self.start_process(theirs))
            theirs.close()
            self._connections.append(ours)
            setup = replace(own, rank=rank, device=f"cuda:{rank}" if is_cuda else "cpu")
            ours.send_bytes(pickle.dumps(setup))
            ours.send_bytes(pickle.dumps(blanks))
        for rank, connection in enumerate(self._connections, 1):
            if not connection.poll(_START_S):
                problem = f"rank {rank} of this worker has not started in {_START_S:g} s"
                raise BrokenWorker(problem, "see its log")
            if content := connection.recv_bytes():
                raise _error(rank, content)
        own.join()
        for name, network in self._networks.items():
            weights = tensors_of(network)
            shapes = pickle.dumps({key: Weight.of(weight) for key, weight in weights.items()})
            for connection in self._connections:
                connection.send_bytes(shapes)
            for weight in weights.values():
                broadcast(weight)
            # It has the same weights, and can be given hooks of its own.
            twin = copy.deepcopy(network, {id(weight): weight for weight in weights.values()})
            vars(twin).pop("forward", None)
            self.twins[name] = parallel(twin, own)
        self._versions = self._weights_now()

    def _cause(self, error: Exception) -> Exception:
        """Return why a call failed: another rank's error, that it is gone, or the error itself."""
        is_ours = isinstance(error, RuntimeError) and not _is_of_the_group(error)
        if is_ours or isinstance(error, BrokenWorker):
            return error
        for rank, connection in enumerate(self._connections, 1):
            try:
                if connection.poll(_CAUSE_S if _is_of_the_group(error) else 0):
                    return _error(rank, connection.recv_bytes())
            except (EOFError, OSError):
                return BrokenWorker(f"rank {rank} of this worker has died", "see its log, and the machine's")
        if not _is_of_the_group(error):
            return error
        seconds = TIMEOUT.total_seconds()
        return BrokenWorker(f"a rank of this worker has not answered for {seconds:g} s", "see its log")


def _is_of_the_group(error: Exception) -> bool:
    """Whether it says that another rank did not do its part."""
    texts = ("gloo", "NCCL", "ncclUnhandled", "Wait timeout")
    return isinstance(error, dist.DistError | OSError | EOFError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )


def _module_of(error: Exception, name: str, network: nn.Module | None) -> str:
    paths = {id(module): path for path, module in network.named_modules()} if network else {}
    calls = [id(frame.f_locals.get("self")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    failed = [f"{name}.{paths[call]}".rstrip(".") for call in calls if call in paths]
    return failed[-1] if failed else ""


def _error(rank: int, content: bytes) -> Exception:
    is_full, text = pickle.loads(content)
    return (OutOfMemory if is_full else RuntimeError)(f"rank {rank} of this worker: {text}")
