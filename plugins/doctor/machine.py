"""What a job needs of a machine: sound GPUs, a processor that computes, disks, shared memory, open files."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.model.sources.cache import cache_folder
from framefleet.plugins.doctor.results import LIMIT_S, Check, CheckResult, error, ok, warning

_GIB = 2**30
_LEAST_DISK, _ENOUGH_DISK = 1 * _GIB, 10 * _GIB  # clips under way, Ray's logs; and a small model
# Ray keeps objects in it (128 MiB in a cluster of our own), and NCCL its buffers; Docker gives 64 MiB.
_LEAST_SHARED, _ENOUGH_SHARED = 16 * 2**20, 128 * 2**20
_ENOUGH_FILES = 1024
_TAKEN = 0.05  # share of a GPU's memory that others may have: a desktop or a monitor takes less
# Broken memory, links and buses, by NVIDIA's list; the others are mostly of programs.
_OF_HARDWARE = {"48", "64", "74", "79", "95", "119", "120", "140"}
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")
_FIELDS = "index,uuid,name,driver_version,memory.total,memory.free,ecc.errors.uncorrected.volatile.total"


class Gpu(NamedTuple):
    """As nvidia-smi prints it, memory in MiB."""

    number: str
    uuid: str
    name: str
    driver: str
    total: str
    free: str
    uncorrected: str  # memory errors since the driver was loaded; a GPU may not count them
    mig: str


def inspect_gpus() -> Iterator[CheckResult]:
    """Yield the driver and memory of each GPU, who takes of it, memory errors and Xids."""
    if not shutil.which("nvidia-smi"):
        yield ok("no NVIDIA GPU: there is no nvidia-smi here")
        return
    gpus = [Gpu(*row) for row in _ask(f"gpu={_FIELDS},mig.mode.current")]
    users = _ask("compute-apps=gpu_uuid,pid,process_name,used_memory")
    for gpu in gpus:
        yield _memory_of(gpu, [row for row in users if row[0] == gpu.uuid])
        if gpu.uncorrected not in ("0", "[N/A]"):
            yield error(
                f"GPU {gpu.number}: {gpu.uncorrected} memory errors that could not be corrected (ECC)",
                "reset the GPU or restart the machine; replace the GPU if they come again",
            )
        if gpu.mig == "Enabled":
            yield warning(
                f"GPU {gpu.number} is split into MIG instances, each with a part of its memory",
                "plan with the memory of one instance, or switch it off: nvidia-smi -mig 0",
            )
    yield from _xids()


def has_gpu() -> bool:
    """Return whether a driver says that there is one."""
    try:
        return bool(shutil.which("nvidia-smi") and _ask("gpu=uuid"))
    except FleetError:
        return False


def _ask(query: str) -> list[list[str]]:
    """Return the rows that nvidia-smi prints. Raises FleetError where it fails."""
    command = ["nvidia-smi", f"--query-{query}", "--format=csv,noheader,nounits"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if ended.returncode:
        message = (ended.stdout + ended.stderr).strip().partition("\n")[0]
        raise FleetError(
            f"nvidia-smi fails: {message}", "load or install NVIDIA's driver, or restart the machine"
        )
    return [line.split(", ") for line in ended.stdout.splitlines() if line.strip()]


def _memory_of(gpu: Gpu, users: list[list[str]]) -> CheckResult:
    """users: the rows of processes on this GPU. In a container they may be missing."""
    free, total = float(gpu.free) / 1024, float(gpu.total) / 1024
    text = f"GPU {gpu.number}: {gpu.name}, driver {gpu.driver}, {free:.1f} of {total:.1f} GiB free"
    others = [f"{name} (pid {pid}, {used} MiB)" for _, pid, name, used in users if "ray::" not in name]
    if others or (free < total * (1 - _TAKEN) and not users):
        taken = ", ".join(others) or "processes that cannot be seen from here"
        return warning(f"{text}; taken by {taken}", "end them, or wait for them, before a job starts")
    return ok(text + ("; used by Ray's workers" if users else ""))


def _xids() -> Iterator[CheckResult]:
    """Yield what the kernel has logged of GPU errors."""
    log = subprocess.run(["dmesg"], capture_output=True, text=True) if shutil.which("dmesg") else None
    if log is None or log.returncode:
        yield ok("GPU errors (Xid) are in the kernel's log, which this user cannot read")
        return
    for (bus, number), count in sorted(Counter(_XID.findall(log.stdout)).items()):
        yield (error if number in _OF_HARDWARE else warning)(
            f"GPU at {bus}: Xid {number}, {count} times since the machine started",
            "look it up in NVIDIA's list of Xid errors; restart the machine if it is one of hardware",
        )


def inspect_processor() -> Iterator[CheckResult]:
    """Yield whether a child survives computing in the dtypes of models, or did so before: see `prove`."""
    from framefleet.pipeline.model.environment import MAX_CPU_ISA
    from framefleet.pipeline.model.place_trial import needed_isa, try_out

    if isa := needed_isa("cpu", ["bf16", "fp16"]):
        yield warning(
            f"the processor announces instructions that kill a process which computes in bf16 or fp16; "
            f"with {MAX_CPU_ISA}={isa} it survives",
            f"nothing for jobs, which set it; set {MAX_CPU_ISA}={isa} for your own programs",
        )
    else:
        yield ok(f"{os.cpu_count()} cores compute in fp32, bf16 and fp16")
    if has_gpu():
        try_out("cuda", ["bf16", "fp16"])
        yield ok("the GPU computes in bf16 and fp16")


def inspect_disks() -> Iterator[CheckResult]:
    """Yield the room where jobs write: one result for each folder."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = {"TMPDIR": Path(tempfile.gettempdir()), "FRAMEFLEET_CACHE": cache_folder()}
    for name, folder in (folders | {"HF_HOME": Path(HF_HUB_CACHE)}).items():
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(place).free
        text, fix = f"{free / _GIB:.1f} GiB free in {folder}", f"make room there, or set {name}"
        if not os.access(place, os.W_OK) or os.statvfs(place).f_flag & os.ST_RDONLY:
            yield error(f"{folder} cannot be written", f"mend its rights, or set {name}")
        elif free < _ENOUGH_DISK:
            yield (error if free < _LEAST_DISK else warning)(text, f"{fix} to a folder on a larger disk")
        else:
            yield ok(text)


def inspect_shared_memory() -> Iterator[CheckResult]:
    """Yield the room in /dev/shm."""
    if platform.system() != "Linux":
        yield ok("not needed on this system")
        return
    free = shutil.disk_usage("/dev/shm").free if os.path.ismount("/dev/shm") else 0
    text = f"{free / 2**20:,.0f} MiB free in /dev/shm"
    fix = "docker run --shm-size=1g; in Kubernetes an emptyDir with `medium: Memory` at /dev/shm"
    if free < _ENOUGH_SHARED:
        report = error if free < _LEAST_SHARED else warning
        yield report(f"{text}: Ray keeps its objects on a disk, and training on several GPUs fails", fix)
    else:
        yield ok(text)


def inspect_open_files() -> Iterator[CheckResult]:
    """Yield how many files a process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _ENOUGH_FILES:
        yield warning(
            f"a process may open {soft} files, and Ray opens more on a busy machine",
            f"ulimit -n {min(hard, 65_536)} before Ray or framefleet starts",
        )
    else:
        yield ok(f"a process may open {soft:,} files")


def inspect_ray_folder() -> Iterator[CheckResult]:
    """Yield whether other users can write Ray's folder: of the cluster, or of one that a job starts here."""
    from framefleet.cluster.fleet.ray_folder import PRIVATE, ray_folder_problem

    if problem := ray_folder_problem():
        yield warning(problem, PRIVATE)
    else:
        yield ok("only its owner can write in Ray's folder")


MACHINE_CHECKS: dict[str, Check] = {
    "gpus": inspect_gpus,
    "processor": inspect_processor,
    "disks": inspect_disks,
    "shared-memory": inspect_shared_memory,
    "open-files": inspect_open_files,
    "ray-folder": inspect_ray_folder,
}
