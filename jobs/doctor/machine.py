"""What a job needs of a machine: a processor that computes, room on disks, shared memory, open files."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from framefleet.jobs.doctor.gpus import has_gpu, inspect_gpus
from framefleet.jobs.doctor.results import Check, CheckResult, error, ok, warning
from framefleet.pipeline.model.sources.cache import cache_folder

_GIB = 2**30
_LEAST_DISK, _ENOUGH_DISK = 1 * _GIB, 10 * _GIB  # clips under way, Ray's logs; and a small model
# Ray keeps objects in it (128 MiB in a cluster of our own), and NCCL its buffers; Docker gives 64 MiB.
_LEAST_SHARED, _ENOUGH_SHARED = 16 * 2**20, 128 * 2**20
_ENOUGH_FILES = 1024


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


MACHINE_CHECKS: dict[str, Check] = {
    "gpus": inspect_gpus,
    "processor": inspect_processor,
    "disks": inspect_disks,
    "shared-memory": inspect_shared_memory,
    "open-files": inspect_open_files,
}
