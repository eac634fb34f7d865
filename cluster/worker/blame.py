"""In: an error. Out: whose fault it is, which decides what is done about it. One table, with the reasons.

row      the row: it is tried again elsewhere, `retries.attempts` times, then it goes to failures/
memory   too little for the row alone: its process is ended, and it goes where there is more, see `Dispatcher`
worker   its process: it is ended, another takes its place, and its rows go back as after a crash
host     its machine: as above, but no row has spent an attempt; after `retries.faults` in a row, with no row
         done in between, the machine is no longer used. If it happens to the same row again where others were
         done meanwhile, it is the row's fault
output   the output itself: the job ends, and can continue when that is repaired
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from framefleet.pipeline import errors

Blame = Literal["row", "memory", "worker", "host", "output"]

# What CUDA and its libraries say through RuntimeError, on which torch has few classes of its own.
_OF_THE_GPU = (
    *("CUDA error", "CUDA driver error", "CUDA unknown error", "CUDA_ERROR_", "HIP error", "cuDNN error"),
    *("CUDNN_STATUS_", "CUBLAS_STATUS_", "CUSOLVER_STATUS_", "CUSPARSE_STATUS_"),
    *("NCCL error", "NCCL Error", "Triton Error ["),
    *("No CUDA GPUs are available", "Found no NVIDIA driver", "cudaGetDeviceCount"),
    "NVML_SUCCESS",  # an assertion of torch's allocator
    "an illegal memory access was encountered",  # as kernels that are built on their own say it
    *("unspecified launch failure", "device-side assert", "uncorrectable ECC"),
)
_BAD_GPU = "the GPU or its context is in a bad state, which a new process may clear"
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_OF_THE_MACHINE = {errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ESTALE}
_MAX_CHAIN = 16  # errors that led to an error; a chain may be a ring


@dataclass(frozen=True, slots=True)
class Culprit:
    """blame: whose fault. reason: why we say so, for people."""

    blame: Blame
    reason: str


# A rule has a class of errors; words of messages or numbers, one of which the error must have, if there are
# any; whose fault it is, and why. The first rule counts that fits an error, or one that led to it.
_RULES: tuple[tuple[type[BaseException], Collection[str | int], Blame, str], ...] = (
    (errors.NoFile, (), "output", "something else is in a file's place, for every machine"),
    # A machine has its own keys, link and clock: if others continue, the store is fine. If all of them fail
    # like this, no machine is left, and the job ends.
    (errors.StoreError, (), "host", "the store cannot be used from this machine"),
    (errors.AuthorityError, (), "host", "the time authority cannot be used from this machine"),
    (errors.BrokenWorker, (), "worker", "a process that computes with it has died or stopped"),
    # A kernel that failed leaves the process's context unusable: all its later calls fail too.
    (RuntimeError, _OF_THE_GPU, "worker", _BAD_GPU),
    (OSError, _OF_THE_DISK, "host", "a disk of this machine is full, read-only or broken"),
    (OSError, _OF_THE_MACHINE, "host", "this machine has run out of memory, files or devices"),
    # Of the GPU's memory the renderer makes OutOfMemory, when a row alone does not fit.
    (MemoryError, (), "host", "this machine's memory is full"),
)


def culprit_of(error: BaseException) -> Culprit:
    """Return whose fault it is that a row did not become a stored clip."""
    if isinstance(error, errors.OutOfMemory):
        return Culprit("memory", "elsewhere, or in a new process, there may be more")
    if isinstance(error, errors.RowError):
        return Culprit("row", "its arguments, its inputs or its size")
    link = error
    for _ in range(_MAX_CHAIN):
        for kind, signs, blame, reason in _RULES:
            number, text = link.errno if isinstance(link, OSError) else None, errors.message_of(link)
            has_sign = number in signs or any(isinstance(sign, str) and sign in text for sign in signs)
            if isinstance(link, kind) and (has_sign or not signs):
                return Culprit(blame, reason)
        if (cause := link.__cause__ or link.__context__) is None:
            break
        link = cause
    return Culprit("row", "its recipe raised it, and it does not look like the machine's")
