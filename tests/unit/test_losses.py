"""What Ray says of a death, in words that name the cause; and whose fault that makes it."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from framefleet.cluster.fleet import losses
from framefleet.cluster.fleet.actors import Listening
from framefleet.cluster.fleet.losses import address_in, cause_of_death, cause_of_loss
from framefleet.cluster.worker.blame import culprit_of
from framefleet.cluster.worker.messages import Failed
from framefleet.pipeline.errors import ModelError, NoFile, OutOfMemory, RenderError, StoreError
from framefleet.pipeline.memory import is_out_of_memory
from framefleet.pipeline.outputs.columns import why_missing

HEAD = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: Actor\n\tactor_id: ab12\n"
    "\tpid: 17\n\tnamespace: ff\n\tip: 10.99.0.12\n"
)
KILLED = HEAD + (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit "
    "detail: Worker unexpectedly exits with a connection error code 2. End of file. Some common causes "
    "include: (1) the process was killed by the OOM killer due to high memory usage, (2) ray stop --force "
    "was called, or (3) the worker crashed unexpectedly due to SIGSEGV or another unexpected error."
)
OUT_OF_MEMORY = HEAD + (
    "Task was killed due to the node running low on memory.\nMemory on the node (IP: 10.99.0.12, ID: 12ab) "
    "was 30.02GB used / 29.45GB limit (1.02)\nOOM kill reason: policy\nRefer to the documentation "
    "on how to address the out of memory issue: https://docs.ray.io/en/latest/debug-memory.html."
)
NODE = HEAD + "The actor died because its node has died. Node Id: 12ab"
"\n\tthe actor's node was terminated expectedly: received SIGTERM"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            KILLED,
            "its process ended without a message: killed (e.g. by the kernel, out of memory), or crashed",
        ),
        (NODE, "its machine is gone: Ray has lost contact with it"),
        (HEAD + "\x1b[31mThe cause, in red\x1b[0m", "The cause, in red"),
        (HEAD, "The actor died unexpectedly before finishing this task."),
    ],
)
def test_the_cause_is_told_in_words(text: str, told: str) -> None:
    assert cause_of_death(text).startswith(told)
    assert address_in(text) == "10.99.0.12"
    memory = cause_of_death(OUT_OF_MEMORY)
    assert "ran out of memory" in memory and "GB" in memory and "https" not in memory
    long = cause_of_death("first line\n" + "at some place\n" * 500 + "ValueError: the cause")
    assert len(long) < 500 and long.endswith("ValueError: the cause")


def test_a_process_of_this_machine_is_named_by_its_signal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "python-core-worker-ab12_117.log").write_text("*** SIGSEGV received, by another\n")
    node = SimpleNamespace(node_ip_address="10.99.0.12", get_logs_dir_path=lambda: str(tmp_path))
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    for line, num_kills, told in (
        ("E 17 17] logging.cc:474: *** SIGILL received at time=1 on cpu 1 ***", 2, "crashed with SIGILL"),
        ("E 17 17] logging.cc:474: *** SIGBUS received at time=1 on cpu 0 ***", 2, "crashed with SIGBUS"),
        ("I 17 17] as usual", 2, "or its connection; out-of-memory kills by this kernel meanwhile: 2"),
    ):
        (tmp_path / "python-core-worker-ab12_17.log").write_text(f"{line}\n")
        monkeypatch.setattr(losses, "_OOM_KILLS_BEFORE", losses._num_oom_kills() - num_kills)
        assert told in cause_of_death(KILLED)
    node.node_ip_address = "10.99.0.13"  # it was elsewhere, and so are its logs
    assert "killed (e.g. by the kernel" in cause_of_death(KILLED)


def test_a_machine_that_is_gone_has_no_suspects_and_a_crash_has_all_rows() -> None:
    gone = cause_of_loss(RayActorError("ab12", NODE), is_ready=True)
    assert (gone.kind, gone.suspects, gone.address) == ("gone", (), "10.99.0.12")
    died = cause_of_loss(RayActorError("ab12", KILLED), is_ready=True)
    assert (died.kind, died.suspects) == ("died", None)
    assert cause_of_loss(RayActorError("ab12", KILLED), is_ready=False).kind == "machine", "no row was there"
    away = cause_of_loss(ActorUnavailableError("RpcError: rpc_code: 14", None), is_ready=True)
    assert (away.kind, away.suspects) == ("silent", ())
    assert away.reason == "out of reach: Ray has ended on its machine, or its network is down"


def test_what_a_worker_raises_is_its_machines_before_it_is_ready() -> None:
    error = ModelError("/models/wan is not there", "put it there")
    refused = cause_of_loss(RayTaskError("start", "", error), is_ready=False)
    assert (refused.kind, refused.error, refused.reason) == ("refused", error, "/models/wan is not there")
    sick = cause_of_loss(RayTaskError("start", "", RuntimeError("CUDA error: no device")), is_ready=False)
    assert (sick.kind, sick.reason) == ("machine", "RuntimeError: CUDA error: no device")
    assert cause_of_loss(RayTaskError("exchange", "", ValueError("ours")), is_ready=True).kind == "died"
    left = cause_of_loss(RayTaskError("exchange", "Ray's own text", GeneratorExit("left")), is_ready=True)  # type: ignore[arg-type]
    assert (left.kind, left.reason) == ("died", "GeneratorExit: left")
    full = cause_of_loss(RayTaskError("exchange", "", OSError(28, "No space left")), is_ready=True)
    assert (full.kind, full.suspects) == ("machine", ())


def test_time_in_which_a_process_was_stopped_does_not_count() -> None:
    clock = Listening(10.0)
    for now in (10.5, 11.0, 131.0, 131.5):
        clock.tick(now, at_most=1.0)
    assert clock.seconds == 2.5


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
    assert why_missing(error) == f"{type(error).__name__}: {failed.message}"
