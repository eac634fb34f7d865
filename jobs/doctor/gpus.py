"""In: what nvidia-smi and the kernel's log say. Out: what is wrong with the GPUs of this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from framefleet.jobs.doctor.results import LIMIT_S, CheckResult, error, ok, warning
from framefleet.pipeline.errors import FleetError

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
        said = (ended.stdout + ended.stderr).strip().partition("\n")[0]
        raise FleetError(
            f"nvidia-smi fails: {said}", "load or install NVIDIA's driver, or restart the machine"
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
