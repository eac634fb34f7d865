"""What a job needs of a machine: sound GPUs, a processor that computes, disks, shared memory, open files.

And of what is installed: libraries, attention kernels, a compiler, fonts, encoders.

Each check is a function. What it finds is reported within ten seconds, whatever it does or waits for.
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
from framefleet.pipeline.model.environment import source_fingerprint, version_of

LIMIT_S = 10.0  # for each check: a hung disk, driver or server is a result too


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a check found on a machine. fix: what to do about it; empty where all is well.

    error: jobs fail or hang here. warning: jobs are slower, or a part of framefleet does not work.
    """

    machine: str = ""
    check: str = ""
    state: Literal["ok", "warning", "error"]
    text: str
    fix: str = ""
    seconds: float = 0.0


Check = Callable[[], Iterable[CheckResult]]
STORE = "store"  # the check whose silence is an error: jobs would hang too


def ok(text: str) -> CheckResult:
    return CheckResult(state="ok", text=text)


def warning(text: str, fix: str) -> CheckResult:
    return CheckResult(state="warning", text=text, fix=fix)


def error(text: str, fix: str) -> CheckResult:
    return CheckResult(state="error", text=text, fix=fix)


def run_checks(checks: Mapping[str, Check]) -> list[CheckResult]:
    """Run checks at once; return what they found, in their order. The thread of one that hangs is left."""
    began, results_by_check = time.monotonic(), dict[str, list[CheckResult]]()

    def run(name: str) -> None:
        try:
            results = list(checks[name]())
        except FramefleetError as failure:
            results = [error(failure.problem, failure.fix)]
        except Exception as failure:  # of a library that is broken, which is what is looked for
            message = public_text(f"{type(failure).__name__}: {failure}")
            results = [error(f"the check failed: {message}", "see whether the library that raised it works")]
        seconds = round(time.monotonic() - began, 2)
        results_by_check[name] = [replace(result, check=name, seconds=seconds) for result in results]

    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in checks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, began + LIMIT_S - time.monotonic()))
    problem, fix = f"no result after {LIMIT_S:.0f} s", "run it again when the machine has less to do"
    for name in checks:
        late = error(problem, "see whether it answers") if name == STORE else warning(problem, fix)
        results_by_check.setdefault(name, [replace(late, check=name, seconds=LIMIT_S)])
    return [result for name in checks for result in results_by_check[name]]


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
_SHOWN = ("framefleet", "torch", "diffusers", "transformers", "ray", "av")
# In a process of its own: it takes memory of the GPU, and libraries may end it.
_ATTENTION = """
import torch
from framefleet.pipeline.model.options.attention import candidates, works
device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
print(device, torch.__version__)
print(*(name for name in candidates(device) if works(name, device=device, dtype=dtype)))
"""
# As above. Pairs of GPUs that cannot read each other's memory.
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
                f"GPU {gpu.number}: memory errors that could not be corrected (ECC): {gpu.uncorrected}",
                "reset the GPU or restart the machine; replace the GPU if they come again",
            )
        if gpu.mig == "Enabled":
            yield warning(
                f"GPU {gpu.number} is split into MIG instances, each with a part of its memory",
                "plan with the memory of one instance, or switch it off: nvidia-smi -mig 0",
            )
    # What the kernel has logged of GPU errors.
    log = subprocess.run(["dmesg"], capture_output=True, text=True) if shutil.which("dmesg") else None
    if log is None or log.returncode:
        yield ok("GPU errors (Xid) are in the kernel's log, which this user cannot read")
        return
    for (bus, number), count in sorted(Counter(_XID.findall(log.stdout)).items()):
        yield (error if number in _OF_HARDWARE else warning)(
            f"GPU at {bus}: Xid {number}, {count_text(count, 'time')} since the machine started",
            "look it up in NVIDIA's list of Xid errors; restart the machine if it is one of hardware",
        )


def inspect_peers() -> Iterator[CheckResult]:
    """Yield whether GPUs can read each other's memory, which a worker of several copies through."""
    if not has_gpu():
        yield ok("no NVIDIA GPU")
        return
    ended = _run(python("-c", _PEERS))
    if ended.returncode:
        yield error("torch cannot ask the GPUs: " + ended.stderr.strip().rpartition("\n")[2], "see `gpus`")
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
    """Return whether a driver says that there is one."""
    try:
        return bool(shutil.which("nvidia-smi") and _ask("gpu=uuid"))
    except FleetError:
        return False


def _run(command: list[str], source: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=source, capture_output=True, text=True, timeout=LIMIT_S)


def _ask(query: str) -> list[list[str]]:
    """Return the rows that nvidia-smi prints. Raises FleetError where it fails."""
    ended = _run(["nvidia-smi", f"--query-{query}", "--format=csv,noheader,nounits"])
    if ended.returncode:
        message = (ended.stdout + ended.stderr).strip().partition("\n")[0]
        raise FleetError(
            f"nvidia-smi fails: {message}", "load or install NVIDIA's driver, or restart the machine"
        )
    return [line.split(", ") for line in ended.stdout.splitlines() if line.strip()]


def _memory_of(gpu: Gpu, users: list[list[str]]) -> CheckResult:
    """users: the rows of processes on this GPU. In a container they may be missing."""
    if not gpu.free.isdecimal() or not gpu.total.isdecimal():  # "[N/A]", where the processor shares it
        return ok(f"GPU {gpu.number}: {gpu.name}, driver {gpu.driver}; its memory is the machine's")
    free, total = float(gpu.free) / 1024, float(gpu.total) / 1024
    text = f"GPU {gpu.number}: {gpu.name}, driver {gpu.driver}, {free:.1f} of {total:.1f} GiB free"
    others = [f"{name} (pid {pid}, {used} MiB)" for _, pid, name, used in users if "ray::" not in name]
    if others or (free < total * (1 - _TAKEN) and not users):
        taken = ", ".join(others) or "processes that cannot be seen from here"
        return warning(f"{text}; taken by {taken}", "end them, or wait for them, before a job starts")
    return ok(text + ("; used by Ray's workers" if users else ""))


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
        yield ok(f"the processor computes in fp32, bf16 and fp16; cores: {os.cpu_count()}")
    if has_gpu():
        try_out("cuda", ["bf16", "fp16"])
        yield ok("the GPU computes in bf16 and fp16")


def inspect_disks() -> Iterator[CheckResult]:
    """Yield the room where jobs write: one result for each folder."""
    from huggingface_hub.constants import HF_HUB_CACHE

    # What is set, and not where Python goes instead, without a word, if that is full or read-only.
    temporary = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
    folders = {"TMPDIR": temporary, "FRAMEFLEET_CACHE": cache_folder()}
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


def versions() -> dict[str, str]:
    """Return what must be equal on all machines of a cluster."""
    platform_versions = {"python": platform.python_version(), "source": source_fingerprint()[:12]}
    return platform_versions | {name: version_of(name) for name in _SHOWN}


def inspect_libraries() -> Iterator[CheckResult]:
    """Yield requirements of framefleet's that what is installed does not meet."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("framefleet") or ()]
    wrong = [
        f"{one.name}{one.specifier} is needed, and {version_of(one.name) or 'none'} is installed"
        for one in wanted
        if one.marker is None or one.marker.evaluate({"extra": ""})
        if not one.specifier.contains(version_of(one.name) or "0", prereleases=True)
    ]
    if wrong:
        yield error("; ".join(wrong), "install framefleet again in an environment of its own")
    yield ok(", ".join(f"{name} {version}" for name, version in versions().items() if name != "source"))


def inspect_attention() -> Iterator[CheckResult]:
    """Yield the attention backends of `auto`, the fastest first; also whether torch finds the GPU."""
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
            "install a torch that is built for the CUDA of the driver; check CUDA_VISIBLE_DEVICES",
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
        yield warning("Triton is not installed", "install a torch that is built for CUDA, which brings it")
    else:
        yield ok(f"{compiler} compiles" + (", and Triton is there" if find_spec("triton") else ""))


def inspect_fonts() -> Iterator[CheckResult]:
    """Yield which scripts of titles, on sheets and grids, have a font."""
    from framefleet.plugins.pictures.lettering import font_with

    missing = [name for name, character in _SCRIPTS.items() if font_with(character) is None]
    note = f"; for {', '.join(missing)}: apt install fontconfig fonts-noto-core" if missing else ""
    yield ok(f"fonts for {', '.join(name for name in _SCRIPTS if name not in missing)}{note}")


def inspect_encoders() -> Iterator[CheckResult]:
    """Yield which video encoders work, by encoding two frames with each."""
    import numpy as np

    from framefleet.api.clips import Media, encode
    from framefleet.pipeline.outputs.media.media_settings import VIDEO_ENCODERS

    frames = np.zeros((2, 160, 160, 3), np.uint8)  # NVENC takes no smaller ones
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
