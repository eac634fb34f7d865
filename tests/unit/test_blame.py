"""Whose fault an error is: the machine is blamed for what is not the row's doing."""

from __future__ import annotations

import errno

import pytest

from framefleet.cluster.worker.blame import culprit_of
from framefleet.cluster.worker.messages import Failed
from framefleet.pipeline.errors import NoFile, OutOfMemory, RenderError, StoreError
from framefleet.pipeline.memory import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (ValueError("this row is poison"), "row"),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), "row"),
        (RenderError("no frames", ""), "row"),
        (FileNotFoundError(errno.ENOENT, "a picture of the row's"), "row"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "worker"),
        (RuntimeError("CUDA error: device-side assert triggered"), "worker"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "worker"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "worker"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), "worker"),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), "worker"),
        (RuntimeError("Triton Error [HIP]:  Code: 700, Message: illegal address"), "worker"),
        (RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"), "worker"),
        (RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"), "worker"),
        (RuntimeError("No CUDA GPUs are available"), "worker"),
        (RuntimeError("Found no NVIDIA driver on your system."), "worker"),
        (RuntimeError('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp"'), "worker"),
        (RuntimeError("NCCL Error 1: unhandled cuda error"), "worker"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "host"),
        (OSError(errno.EROFS, "Read-only file system"), "host"),
        (OSError(errno.EIO, "Input/output error"), "host"),
        (OSError(errno.EMFILE, "Too many open files"), "host"),
        (MemoryError(), "host"),
        (StoreError("could not create s3://b/clips/x: AccessDenied", ""), "host"),
        (StoreError("could not create s3://b/clips/x: ConnectTimeout", ""), "host"),
        (NoFile("clips is not a file", ""), "output"),
    ],
)
def test_each_kind_of_error_has_its_culprit(error: Exception, blame: str) -> None:
    assert culprit_of(error).blame == blame
    assert culprit_of(error).reason


@pytest.mark.parametrize(
    ("error", "over", "blame"),
    [
        (ValueError("could not encode"), OSError(errno.ENOSPC, "No space left on device"), "host"),
        (OutOfMemory("too large", ""), MemoryError(), "memory"),  # the place, whatever said so
    ],
)
def test_what_led_to_an_error_is_looked_at_too(error: Exception, over: Exception, blame: str) -> None:
    error.__context__ = over
    assert culprit_of(error).blame == blame
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first  # a ring
    assert culprit_of(first).blame == "row"


class Wordless(RuntimeError):
    """Of a user: raises where it is shown."""

    def __str__(self) -> str:
        raise ValueError


class NoWord(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


@pytest.mark.parametrize(("error", "why"), [(Wordless(), "ValueError"), (NoWord(), "TypeError")])
def test_an_error_that_cannot_be_shown_is_its_rows_own(error: Exception, why: str) -> None:
    assert not is_out_of_memory(error)
    failed = Failed.of("x", error, "")
    assert (failed.blame, failed.error_type) == ("row", type(error).__name__)
    assert failed.message == f"it has no message: its __str__ raised {why}"
