"""Device memory: how much was used, whether an error says that it ran out, and giving it back."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from framefleet.pipeline.errors import OutOfMemory, message_of

# What has no exception class of its own: the CPU allocator, and a GPU's libraries outside torch's allocator.
MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    ": out of memory",  # of CUDA, its driver, HIP and Triton
    "STATUS_ALLOC_FAILED",  # of cuBLAS, hipBLAS, cuSOLVER and cuDNN
    "ALLOCATION_FAILED",  # of cuDNN 9, on the device or the host
    "CUBLAS_STATUS_NOT_INITIALIZED",  # what creating a handle says, mostly for want of memory
    "CUDA_ERROR_OUT_OF_MEMORY",
)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | OutOfMemory | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in message_of(error) for message in MESSAGES)


def room_bytes(device: str) -> int:
    """Return what this process could use of a GPU's memory, its own part included; 0 on a CPU."""
    if not device.startswith("cuda"):
        return 0
    return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


class NoWorkspace(OutOfMemory):
    """A call ended well, and torch caught that memory ran out meanwhile."""


@contextmanager
def whole_workspaces() -> Iterator[None]:
    """Raise NoWorkspace after a block in which torch caught that memory ran out.

    Where a convolution gets no workspace, torch takes another algorithm, whose bits may differ.
    """
    before = _num_ooms()
    yield
    if _num_ooms() > before:
        raise NoWorkspace("memory ran out for a workspace, and other kernels were used")


def _num_ooms() -> int:
    """Return how often the allocators of GPUs had to refuse."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return 0
    stats = map(torch.cuda.memory_stats_as_nested_dict, range(torch.cuda.device_count()))
    return sum(one.get("num_ooms", 0) for one in stats)


def free_memory() -> None:
    """Return cached blocks, so that a smaller attempt finds whole ones."""
    gc.collect()
    empty_cache()


def empty_cache() -> None:
    """Return cached blocks that nothing holds any more."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def on_device(device: str) -> AbstractContextManager[None]:
    """Make a GPU the current one, which is asked wherever no other is named."""
    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()


def peak_memory_bytes(device: str) -> int:
    """The most this process has held: on a model's GPU, or in host memory where that has none."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
