"""Device memory: how much was used, whether an error says that it ran out, and giving it back."""

from __future__ import annotations

import gc
import resource

import torch

from framefleet.pipeline.errors import OutOfMemory

# What has no exception class of its own: the CPU allocator, and CUDA outside torch's allocator.
MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "Cannot allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | OutOfMemory | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def free_memory() -> None:
    """Return cached blocks, so that a smaller attempt finds whole ones."""
    gc.collect()
    empty_cache()


def empty_cache() -> None:
    """Return cached blocks that nothing holds any more."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory_bytes() -> int:
    """The most this process has held: on the GPU where there is one, else in host memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
