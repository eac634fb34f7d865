"""Check what a job needs on a machine: GPUs, processor, disks, shared memory, open files.

Also checks what is installed: libraries, attention kernels, a compiler, fonts, encoders.

Each check is a function. Its result is reported within ten seconds, even if it hangs.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from framefleet.api.errors import FleetError, FramefleetError, count_text
from framefleet.api.texts import public_text, python
from framefleet.pipeline.model.class_cache import cache_folder
from framefleet.pipeline.model.environment import MAX_CPU_ISA, source_fingerprint, version_of

LIMIT_S = 10.0  # for each check; a hung disk, driver or server is also a result


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of a check on a machine. fix: what to do; empty if all is well.

    error: jobs fail or hang here. warning: jobs are slower, or a part of framefleet does not work.
    """

    machine: str = ""
    check: str = ""
    state: Literal["ok", "warning", "error"]
    text: str
    fix: str = ""
    seconds: float = 0.0


Check = Callable[[], Iterable[CheckResult]]
STORE = "store"  # the only check for which no result is an error, since jobs would hang, too


def ok(text: str) -> CheckResult:
    return CheckResult(state="ok", text=text)


def warning(text: str, fix: str) -> CheckResult:
    return CheckResult(state="warning", text=text, fix=fix)


def error(text: str, fix: str) -> CheckResult:
    return CheckResult(state="error", text=text, fix=fix)


def run_checks(checks: Mapping[str, Check]) -> list[CheckResult]:
    """Run checks at once; return their results, in order. Threads of checks that hang are abandoned."""
    began, results_by_check = time.monotonic(), dict[str, list[CheckResult]]()

    def run(name: str) -> None:
        try:
            results = list(checks[name]())
        except FramefleetError as failure:
            results = [error(failure.problem, failure.fix)]
        except Exception as failure:  # from a broken library, which is what the check is for
            message = public_text(f"{type(failure).__name__}: {failure}")
            results = [error(f"the check failed: {message}", "check whether the library works")]
        seconds = round(time.monotonic() - began, 2)
        results_by_check[name] = [replace(result, check=name, seconds=seconds) for result in results]

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in checks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, began + LIMIT_S - time.monotonic()))
    problem, fix = f"no result after {LIMIT_S:.0f} s", "run it again when the machine is less busy"
    for name in checks:
        late = error(problem, "check whether it answers") if name == STORE else warning(problem, fix)
        results_by_check.setdefault(name, [replace(late, check=name, seconds=LIMIT_S)])
    return [result for name in checks for result in results_by_check[name]]


_GIB = 2**30
_LEAST_DISK, _ENOUGH_DISK = 1 * _GIB, 10 * _GIB  # for unfinished clips and Ray's logs; with a small model
# For Ray's objects (128 MiB in our own cluster) and NCCL's buffers. Docker's default is 64 MiB.
_LEAST_SHARED, _ENOUGH_SHARED = 16 * 2**20, 128 * 2**20
_ENOUGH_FILES = 1024
_TAKEN = 0.05  # share of a GPU's memory that other programs may use; a desktop or a monitor uses less
# Broken memory, links and buses, from NVIDIA's list; the others are mostly errors of programs.
_OF_HARDWARE = {"48", "64", "74", "79", "95", "119", "120", "140"}
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")
_FIELDS = "index,uuid,name,driver_version,memory.total,memory.free,ecc.errors.uncorrected.volatile.total"
_SHOWN = ("framefleet", "torch", "diffusers", "transformers", "ray", "av")
# In a separate process, since it uses GPU memory, and libraries may end it.
_ATTENTION = """
import torch
from framefleet.pipeline.model.options.attention import candidates, works
device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
print(device, torch.__version__)
print(*(name for name in candidates(device) if works(name, device=device, dtype=dtype)))
"""
# Also in a separate process. Pairs of GPUs that cannot read each other's memory.
_PEERS = """
import itertools, torch
num, can = torch.cuda.device_count(), torch.cuda.can_device_access_peer
print(num, *(f"{a}-{b}" for a, b in itertools.permutations(range(num), 2) if not can(a, b)))
"""
# What torch.compile's C++ and Triton's launchers include.
_SOURCE = "#include <Python.h>\n#include <omp.h>\n"
_SCRIPTS = {"Latin": "a", "Chinese": "\u8bb0", "Japanese": "\u3042", "Korean": "\ud55c", "Cyrillic": "\u0416"}
_SCRIPTS |= {"Arabic": "\u0639", "Hindi": "\u0939", "Hebrew": "\u05d0", "Thai": "\u0e01"}


class Gpu(NamedTuple):
    """A GPU in the output of nvidia-smi, memory in MiB."""

    number: str
    uuid: str
    name: str
    driver: str
    total: str
    free: str
    uncorrected: str  # memory errors since the driver was loaded; not all GPUs count them
    mig: str


def inspect_gpus() -> Iterator[CheckResult]:
    """Yield the driver and memory of each GPU, the programs that use it, memory errors and Xids."""
    if not shutil.which("nvidia-smi"):
        yield ok("no NVIDIA GPU, as nvidia-smi is not here")
        return
    gpus = [Gpu(*row) for row in _ask(f"gpu={_FIELDS},mig.mode.current")]
    users = _ask("compute-apps=gpu_uuid,pid,process_name,used_memory")
    for gpu in gpus:
        yield _memory_of(gpu, [row for row in users if row[0] == gpu.uuid])
        if gpu.uncorrected not in ("0", "[N/A]"):
            yield error(
                f"GPU {gpu.number}: uncorrected memory errors (ECC): {gpu.uncorrected}",
                "reset the GPU or restart the machine; replace the GPU if they come back",
            )
        if gpu.mig == "Enabled":
            yield warning(
                f"GPU {gpu.number} is split into MIG instances, each with a part of its memory",
                "plan with the memory of one instance, or switch MIG off: nvidia-smi -mig 0",
            )
    # GPU errors in the kernel's log.
    log = subprocess.run(["dmesg"], capture_output=True, text=True) if shutil.which("dmesg") else None
    if log is None or log.returncode:
        yield ok("GPU errors (Xid) are in the kernel's log, which this user cannot read")
        return
    for (bus, number), count in sorted(Counter(_XID.findall(log.stdout)).items()):
        yield (error if number in _OF_HARDWARE else warning)(
            f"GPU at {bus}: Xid {number}, {count_text(count, 'time')} since the machine started",
            "look it up in NVIDIA's list of Xid errors; for a hardware error, restart the machine",
        )


def inspect_peers() -> Iterator[CheckResult]:
    """Yield whether GPUs can read each other's memory, as needed for workers with several GPUs."""
    if not has_gpu():
        yield ok("no NVIDIA GPU")
        return
    ended = _run(python("-c", _PEERS))
    if ended.returncode:
        yield error("torch cannot use the GPUs: " + ended.stderr.strip().rpartition("\n")[2], "see `gpus`")
        return
    num, *apart = ended.stdout.split()
    if apart:
        yield warning(
            f"GPUs {', '.join(apart)} have no peer access: copies between them go through host memory",
            "for fleet.gpus_per_worker > 1, use a machine with NVLink, or switch off the IOMMU (ACS)",
        )
    else:
        yield ok(
            "torch finds no two GPUs" if num in "01" else f"all {num} GPUs have peer access to each other"
        )


def has_gpu() -> bool:
    """Whether a driver reports a GPU."""
    try:
        return bool(shutil.which("nvidia-smi") and _ask("gpu=uuid"))
    except FleetError:
        return False


def _run(command: list[str], source: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=source, capture_output=True, text=True, timeout=LIMIT_S)


def _ask(query: str) -> list[list[str]]:
    """Return the rows that nvidia-smi prints. Raises FleetError if it fails."""
    ended = _run(["nvidia-smi", f"--query-{query}", "--format=csv,noheader,nounits"])
    if ended.returncode:
        message = (ended.stdout + ended.stderr).strip().partition("\n")[0]
        raise FleetError(
            f"nvidia-smi fails: {message}", "load or install NVIDIA's driver, or restart the machine"
        )
    return [line.split(", ") for line in ended.stdout.splitlines() if line.strip()]


def _memory_of(gpu: Gpu, users: list[list[str]]) -> CheckResult:
    """users: rows for processes on this GPU, which may be missing in a container."""
    if not gpu.free.isdecimal() or not gpu.total.isdecimal():  # "[N/A]" for shared memory
        return ok(f"GPU {gpu.number}: {gpu.name}, driver {gpu.driver}; it shares the machine's memory")
    free, total = float(gpu.free) / 1024, float(gpu.total) / 1024
    text = f"GPU {gpu.number}: {gpu.name}, driver {gpu.driver}, {free:.1f} of {total:.1f} GiB free"
    others = [f"{name} (pid {pid}, {used} MiB)" for _, pid, name, used in users if "ray::" not in name]
    if others or (free < total * (1 - _TAKEN) and not users):
        taken = ", ".join(others) or "processes that cannot be seen from here"
        return warning(f"{text}; used by {taken}", "end them, or wait for them, before a job starts")
    return ok(text + ("; used by Ray's workers" if users else ""))


def inspect_processor() -> Iterator[CheckResult]:
    """Yield whether a child process survives computing in the dtypes of models; see `prove`."""
    from framefleet.pipeline.model.place_trial import needed_isa, try_out

    if isa := needed_isa("cpu", ["bf16", "fp16"]):
        yield warning(
            f"the processor announces instructions that kill processes computing in bf16 or fp16, "
            f"except with {MAX_CPU_ISA}={isa}",
            f"none needed for jobs, which set it; set {MAX_CPU_ISA}={isa} for your own programs",
        )
    else:
        yield ok(f"the processor computes in fp32, bf16 and fp16; cores: {os.cpu_count()}")
    if has_gpu():
        try_out("cuda", ["bf16", "fp16"])
        yield ok("the GPU computes in bf16 and fp16")


def inspect_disks() -> Iterator[CheckResult]:
    """Yield the free space of each folder to which jobs write."""
    from huggingface_hub.constants import HF_HUB_CACHE

    # Check the folder that is set, since Python silently uses another one if it is full or read-only.
    temporary = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    folders = {"TMPDIR": temporary, "FRAMEFLEET_CACHE": cache_folder()}
    for name, folder in (folders | {"HF_HOME": Path(HF_HUB_CACHE)}).items():
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(place).free
        text, fix = f"{free / _GIB:.1f} GiB free in {folder}", f"free some space there, or set {name}"
        if not os.access(place, os.W_OK) or os.statvfs(place).f_flag & os.ST_RDONLY:
            yield error(f"{folder} cannot be written", f"fix its permissions, or set {name}")
        elif free < _ENOUGH_DISK:
            yield (error if free < _LEAST_DISK else warning)(text, f"{fix} to a folder on a larger disk")
        else:
            yield ok(text)


def inspect_shared_memory() -> Iterator[CheckResult]:
    """Yield the free space in /dev/shm."""
    if platform.system() != "Linux":
        yield ok("not needed on this system")
        return
    free = shutil.disk_usage("/dev/shm").free if os.path.ismount("/dev/shm") else 0
    text = f"{free / 2**20:,.0f} MiB free in /dev/shm"
    fix = "docker run --shm-size=1g; in Kubernetes, an emptyDir with `medium: Memory` at /dev/shm"
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
            f"a process may open {soft} files, but Ray opens more on a busy machine",
            f"ulimit -n {min(hard, 65_536)} before Ray or framefleet starts",
        )
    else:
        yield ok(f"a process may open {soft:,} files")


def inspect_ray_folder() -> Iterator[CheckResult]:
    """Yield whether other users can write to the folder of the cluster's Ray, or of one that a job starts."""
    from framefleet.cluster.fleet.ray_folder import PRIVATE, ray_folder_problem

    if problem := ray_folder_problem():
        yield warning(problem, PRIVATE)
    else:
        yield ok("only its owner can write to Ray's folder")


def versions() -> dict[str, str]:
    """Return the versions that must be equal on all machines of a cluster."""
    platform_versions = {"python": platform.python_version(), "source": source_fingerprint()[:12]}
    return platform_versions | {name: version_of(name) for name in _SHOWN}


def inspect_libraries() -> Iterator[CheckResult]:
    """Yield framefleet's requirements that are not met."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("framefleet") or ()]
    wrong = [
        f"{one.name}{one.specifier} is needed, but {version_of(one.name) or 'none'} is installed"
        for one in wanted
        if one.marker is None or one.marker.evaluate({"extra": ""})
        if not one.specifier.contains(version_of(one.name) or "0", prereleases=True)
    ]
    if wrong:
        yield error("; ".join(wrong), "install framefleet again in a separate environment")
    yield ok(", ".join(f"{name} {version}" for name, version in versions().items() if name != "source"))


def inspect_attention() -> Iterator[CheckResult]:
    """Yield the attention backends for `auto`, the fastest first, and whether torch finds the GPU."""
    ended = _run(python("-c", _ATTENTION))
    if ended.returncode:
        last = ended.stderr.strip().rpartition("\n")[2] or f"exit code {ended.returncode}"
        yield error(f"torch or diffusers cannot be used: {last}", "install framefleet again")
        return
    torch, names = ended.stdout.splitlines()
    device, _, version = torch.partition(" ")
    if device == "cpu" and has_gpu():
        yield error(
            f"torch {version} does not find the GPU that nvidia-smi shows",
            "install torch for the driver's CUDA version; check CUDA_VISIBLE_DEVICES",
        )
    yield ok(f"on {device}: {names or 'none'}")


def inspect_compiler() -> Iterator[CheckResult]:
    """Yield whether `compile` can work: a C++ compiler with OpenMP and Python's headers; Triton on a GPU."""
    fix = "apt install g++ python3-dev (conda: gxx); only `model: {compile: ...}` needs it"
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        yield warning("no C++ compiler (g++)", fix)
        return
    include = f"-I{sysconfig.get_paths()['include']}"
    ended = _run([compiler, "-x", "c++", "-fsyntax-only", "-fopenmp", include, "-"], source=_SOURCE)
    if ended.returncode:
        message = next((line for line in ended.stderr.splitlines() if "error" in line), ended.stderr[:200])
        yield warning(f"{compiler} fails: {message.strip()}", fix)
    elif has_gpu() and find_spec("triton") is None:
        yield warning("Triton is not installed", "install torch for CUDA, which includes it")
    else:
        yield ok(f"{compiler} works" + (", and Triton is installed" if find_spec("triton") else ""))


def inspect_fonts() -> Iterator[CheckResult]:
    """Yield the scripts for which there is a font, for titles on sheets and grids."""
    from framefleet.plugins.pictures.lettering import font_with

    missing = [name for name, character in _SCRIPTS.items() if font_with(character) is None]
    note = f"; for {', '.join(missing)}: apt install fontconfig fonts-noto-core" if missing else ""
    yield ok(f"fonts for {', '.join(name for name in _SCRIPTS if name not in missing)}{note}")


def inspect_encoders() -> Iterator[CheckResult]:
    """Yield which video encoders work, by encoding two frames."""
    import numpy as np

    from framefleet.api.clips import Media, encode
    from framefleet.pipeline.outputs.media.media_settings import VIDEO_ENCODERS

    frames = np.zeros((2, 160, 160, 3), np.uint8)  # the smallest size for NVENC
    failing = []
    names = [(format, name) for format, encoders in VIDEO_ENCODERS.items() for name in encoders]
    for format, name in names if has_gpu() else [one for one in names if one[1] != "h264_nvenc"]:
        try:
            encode(frames, media=Media(format=format, encoder=name), fps=16, metadata={})
        except FramefleetError:
            failing.append(name)
    if failing:
        yield warning(f"{', '.join(failing)} cannot be used", "pip install --force-reinstall av")
    else:
        yield ok("all video encoders work")


MACHINE_CHECKS: dict[str, Check] = {
    "gpus": inspect_gpus,
    "peers": inspect_peers,
    "processor": inspect_processor,
    "disks": inspect_disks,
    "shared-memory": inspect_shared_memory,
    "open-files": inspect_open_files,
    "ray-folder": inspect_ray_folder,
    "libraries": inspect_libraries,
    "attention": inspect_attention,
    "compiler": inspect_compiler,
    "fonts": inspect_fonts,
    "encoders": inspect_encoders,
}
