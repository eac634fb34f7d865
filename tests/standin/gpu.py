"""The stand-in's devices: their memory, copies that are under way, a clock, and faults.

Knows no tensors but those inside, which are on the CPU. Memory is counted by storages.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

NAME, CAPABILITY = "stand-in for an NVIDIA H100", (9, 0)
TOTAL_BYTES = 80 << 30
ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronous"
ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"
GARBAGE = 0xA5  # the bytes of a copy that nothing has waited for

# Called with the name of each operation, e.g. "convolution", before it runs.
Hook = Callable[[str], None]


@dataclass(slots=True)
class Device:
    """One device. ready_at: when all that was launched on it is done, by `time.perf_counter`."""

    index: int
    capacity: int = TOTAL_BYTES
    allowed: int = TOTAL_BYTES  # for this process, as set_per_process_memory_fraction has it
    used_by_others: int = 0
    used: int = 0  # may count storages that are gone already, until `count` needs to know
    peak: int = 0
    num_ooms: int = 0
    ready_at: float = 0.0
    live: dict[StorageWeakRef, int] = field(default_factory=dict)
    pending: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = field(
        default_factory=lambda: defaultdict(list)  # by stream: copies, with what they are to hold
    )
    num_waits: Counter[str] = field(default_factory=Counter)

    @property
    def free(self) -> int:
        self.sweep()
        return max(0, min(self.allowed, self.capacity - self.used_by_others) - self.used)

    def sweep(self) -> None:
        """Forget storages that are gone."""
        self.live = {storage: size for storage, size in self.live.items() if not storage.expired()}
        self.used = sum(self.live.values())

    def count(self, tensor: torch.Tensor) -> None:
        """Count a tensor's memory, once. Raises OutOfMemoryError where there is not enough."""
        storage = StorageWeakRef(tensor.untyped_storage())
        if storage in self.live:
            return
        size = tensor.untyped_storage().nbytes()
        most = min(self.allowed, self.capacity - self.used_by_others)
        if self.used + size > min(self.peak, most):
            self.sweep()
        if self.used + size > most:
            self.num_ooms += 1
            raise out_of_memory(
                f"Tried to allocate {size} bytes. GPU {self.index} has {self.free} bytes free."
            )
        self.live[storage] = size
        self.used += size
        self.peak = max(self.peak, self.used)

    def land(self, stream: int | None = None) -> None:
        """Wait until what was launched is done; copies of this stream, or of all, then hold their values."""
        time.sleep(max(0.0, self.ready_at - time.perf_counter()))
        for key in list(self.pending) if stream is None else [stream]:
            for copy, value in self.pending.pop(key, ()):
                copy.copy_(value)


class GPUs:
    """All devices of this process, and what is to go wrong on them."""

    def __init__(self, num: int) -> None:
        self.devices = [Device(index) for index in range(num)]
        self.lock = threading.RLock()
        self.hooks: list[Hook] = []
        self.op_s = 0.0  # what an operation takes on its device, after it was launched
        self.sticky: str | None = None  # what every operation raises since a kernel failed
        self.is_initialized = False
        self.blas: Any = torch._C._BlasBackend.Cublas  # type: ignore[attr-defined]
        self._pid = os.getpid()
        self._here = threading.local()

    @property
    def current(self) -> int:
        """The current device of this thread."""
        return getattr(self._here, "device", 0)

    @current.setter
    def current(self, index: int) -> None:
        self._here.device = index

    @property
    def stream(self) -> int:
        """The current stream of this thread; 0 is the default one."""
        return getattr(self._here, "stream", 0)

    @stream.setter
    def stream(self, number: int) -> None:
        self._here.stream = number

    def index(self, device: Any) -> int:
        if device is None:
            return self.current
        index = device if isinstance(device, int) else torch.device(device).index
        return self.current if index is None else index

    def start(self) -> None:
        if os.getpid() != self._pid and self.is_initialized:
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess.")
        if not self.is_initialized:
            self.is_initialized, self._pid = True, os.getpid()

    def check(self) -> None:
        """Raise the sticky error, if there is one."""
        self.start()
        if self.sticky:
            raise torch.AcceleratorError(self.sticky)

    def launch(self, name: str, index: int) -> None:
        """An operation begins: raise what is to go wrong at it."""
        self.check()
        for hook in list(self.hooks):
            hook(name)
        device = self.devices[index]
        device.ready_at = max(device.ready_at, time.perf_counter()) + self.op_s

    def wait(self, index: int, why: str, stream: int | None = None) -> None:
        self.check()
        with self.lock:
            self.devices[index].num_waits[why] += 1
            self.devices[index].land(stream)

    def later(self, copy: torch.Tensor, value: torch.Tensor, index: int) -> None:
        """Have `copy` hold garbage until its stream was waited for."""
        copy.untyped_storage().fill_(GARBAGE)
        with self.lock:
            self.devices[index].pending[self.stream].append((copy, value))

    @contextmanager
    def hooked(self, hook: Hook) -> Iterator[None]:
        """Run a block with something that may go wrong at its operations; mend it after."""
        self.hooks.append(hook)
        try:
            yield
        finally:
            self.hooks.remove(hook)
            self.sticky = None


def out_of_memory(detail: str = "Tried to allocate 2.00 GiB.") -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError(f"CUDA out of memory. {detail}")
