"""In: what nvidia-smi and the kernel's log say. Out: what is wrong with the GPUs of this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from framefleet.jobs.doctor.results import LIMIT_S, CheckResult, error, ok, warning

_FIELDS = "index,uuid,name,driver_version,memory.total,memory.free,ecc.errors.uncorrected.volatile.total"
_FIELDS += ",mig.mode.current"
_PROCESSES = "gpu_uuid,pid,process_name,used_memory"
_TAKEN = 0.05  # share of a GPU's memory that others may have: a desktop or a monitor takes less
# Broken memory, links and buses, by NVIDIA's list; the others are mostly of programs.
_OF_HARDWARE = {48, 64, 74, 79, 95, 119, 120, 140}
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """uncorrected: memory errors since the driver was loaded; None where the GPU does not count them."""

    index: str
    uuid: str
    name: str
    driver: str
    total_mib: float
    free_mib: float
    uncorrected: int | None
    is_mig: bool


def inspect_gpus() -> Iterator[CheckResult]:
    """Yield the driver and memory of each GPU, who takes of it, memory errors and Xids."""
    if shutil.which("nvidia-smi") is None:
        yield ok("no NVIDIA GPU: there is no nvidia-smi here")
        return
    rows = _ask("gpu", _FIELDS)
    if isinstance(rows, str):
        yield error(f"nvidia-smi fails: {rows}", "load or install NVIDIA's driver, or restart the machine")
        return
    gpus = [_gpu(row) for row in rows]
    users = _ask("compute-apps", _PROCESSES)
    for gpu in gpus:
        yield _memory_of(gpu, [] if isinstance(users, str) else [row for row in users if row[0] == gpu.uuid])
        if gpu.uncorrected:
            yield error(
                f"GPU {gpu.index}: {gpu.uncorrected} memory errors that could not be corrected (ECC)",
                "reset the GPU or restart the machine; replace the GPU if they come again",
            )
        if gpu.is_mig:
            yield warning(
                f"GPU {gpu.index} is split into MIG instances, each with a part of its memory",
                "plan with the memory of one instance, or switch it off: nvidia-smi -mig 0",
            )
    yield from _xids()


def has_gpu() -> bool:
    """Return whether a driver says that there is one."""
    rows = _ask("gpu", "uuid") if shutil.which("nvidia-smi") else []
    return bool(rows) and not isinstance(rows, str)


def _ask(what: str, fields: str) -> list[list[str]] | str:
    """Return the rows that nvidia-smi prints, or why it prints none."""
    command = ["nvidia-smi", f"--query-{what}={fields}", "--format=csv,noheader,nounits"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"no answer after {LIMIT_S:.0f} s"
    if ended.returncode:
        return (ended.stdout + ended.stderr).strip().partition("\n")[0] or f"exit code {ended.returncode}"
    return [[cell.strip() for cell in line.split(",")] for line in ended.stdout.splitlines() if line.strip()]


def _gpu(row: list[str]) -> Gpu:
    index, uuid, name, driver, total, free, uncorrected, mig = row
    return Gpu(
        index=index,
        uuid=uuid,
        name=name,
        driver=driver,
        total_mib=float(total),
        free_mib=float(free),
        uncorrected=int(uncorrected) if uncorrected.isdecimal() else None,
        is_mig=mig == "Enabled",
    )


def _memory_of(gpu: Gpu, users: list[list[str]]) -> CheckResult:
    """users: the rows of processes on this GPU. In a container they may be missing."""
    text = f"GPU {gpu.index}: {gpu.name}, driver {gpu.driver}, "
    text += f"{gpu.free_mib / 1024:.1f} of {gpu.total_mib / 1024:.1f} GiB free"
    names = [
        f"{name} (pid {pid}, {used} MiB)" for _, pid, name, used in users if not name.startswith("ray::")
    ]
    is_taken = gpu.free_mib < gpu.total_mib * (1 - _TAKEN)
    if names or (is_taken and not users):
        taken = ", ".join(names) or "processes that cannot be seen from here"
        return warning(f"{text}; taken by {taken}", "end them, or wait for them, before a job starts")
    return ok(text + ("; used by Ray's workers" if users else ""))


def _xids() -> Iterator[CheckResult]:
    """Yield what the kernel has logged of GPU errors; says where that cannot be read."""
    log = subprocess.run(["dmesg"], capture_output=True, text=True) if shutil.which("dmesg") else None
    if log is None or log.returncode:
        yield ok("GPU errors (Xid) are in the kernel's log, which this user cannot read")
        return
    counts = Counter(_XID.findall(log.stdout))
    for (bus, number), count in sorted(counts.items()):
        report = error if int(number) in _OF_HARDWARE else warning
        yield report(
            f"GPU at {bus}: {count} errors of Xid {number} since the machine started",
            "look it up in NVIDIA's list of Xid errors; restart the machine if it is one of hardware",
        )
    if not counts:
        yield ok("no GPU error (Xid) in the kernel's log")
