"""Device memory: how much was used, whether an error means that it ran out, and how it is freed."""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from framefleet.pipeline.errors import OutOfMemory, message_of

# Errors without an exception class: of the CPU allocator, and of GPU libraries outside torch's allocator.
MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    ": out of memory",  # of CUDA, its driver, HIP and Triton
    "STATUS_ALLOC_FAILED",  # of cuBLAS, hipBLAS, cuSOLVER and cuDNN
    "ALLOCATION_FAILED",  # of cuDNN 9, on the device or the host
    "CUBLAS_STATUS_NOT_INITIALIZED",  # a handle could not be created, mostly for lack of memory
    "CUDA_ERROR_OUT_OF_MEMORY",
)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | OutOfMemory | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in message_of(error) for message in MESSAGES)


def room_bytes(device: str) -> int:
    """Return how much of a GPU's memory this process could use, including what it uses now; 0 on a CPU."""
    if not device.startswith("cuda"):
        return 0
    return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


class NoWorkspace(OutOfMemory):
    """A call succeeded, but memory ran out meanwhile, which torch caught."""


@contextmanager
def whole_workspaces() -> Iterator[None]:
    """Raise NoWorkspace after a block in which memory ran out and torch caught it.

    If a convolution gets no workspace, torch uses another algorithm, whose bits may differ.
    """
    before = _num_ooms()
    yield
    if _num_ooms() > before:
        raise NoWorkspace("memory ran out for a workspace, and other kernels were used")


def _num_ooms() -> int:
    """Return how often GPU allocators ran out of memory."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return 0
    stats = map(torch.cuda.memory_stats_as_nested_dict, range(torch.cuda.device_count()))
    return sum(by_name.get("num_ooms", 0) for by_name in stats)


def free_memory() -> None:
    """Free garbage and cached blocks, so that a smaller attempt finds large blocks."""
    gc.collect()
    empty_cache()


def empty_cache() -> None:
    """Free cached blocks that nothing uses any more."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def on_device(device: str) -> AbstractContextManager[None]:
    """Make a GPU the current one, which torch uses where no device is named."""
    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()


def peak_memory_bytes(device: str) -> int:
    """The most memory this process has used: on the model's GPU, or host memory if it is on the CPU."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
