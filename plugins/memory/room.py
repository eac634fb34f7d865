"""Find the memory where a row is rendered."""

from __future__ import annotations

import functools
import os
import subprocess
from contextlib import suppress
from pathlib import Path

from framefleet.plugins.memory.footprint import GB

# Files of cgroups, versions 2 and 1, in bytes.
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_ASK_S = 5.0  # timeout, as a driver may hang
_ASK = ("nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits")


def room_of(gpu_memory: int | None, *, cpu_workers: int | None, share: float) -> tuple[str, float | None]:
    """Return where a row is rendered, and the available gigabytes, if known.

    gpu_memory: of a GPU, in bytes. share: of a GPU that a worker gets.
    """
    if cpu_workers is not None:
        sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        for file in _CONTAINER_LIMITS:
            with suppress(OSError, ValueError):  # another version of cgroups, or "max"
                sizes.append(int(Path(file).read_text()))
        machine_gb = min(sizes) / GB  # of the machine or its container
        each = f" for each of {cpu_workers} workers" if cpu_workers > 1 else ""
        return f"this machine{each}", machine_gb / cpu_workers
    card = gpu_memory if gpu_memory is not None else min(gpus_here(), default=None)
    place = "the GPU" if share == 1 else f"a worker's share ({share:g}) of the GPU"
    return place, None if card is None else card / GB * share


@functools.cache
def gpus_here() -> tuple[int, ...]:
    """Return the memory of each GPU that this process may use, in bytes; none without NVIDIA's driver."""
    try:
        printed = subprocess.run(_ASK, capture_output=True, text=True, timeout=_ASK_S, check=True).stdout
        gpus = [line.split(", ") for line in printed.splitlines()]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "MIG-")
        if "MIG-" not in visible:  # nvidia-smi lists no parts of GPUs here
            names = [name.strip() for name in visible.split(",") if name.strip()]
            gpus = [gpu for gpu in gpus if any(name == gpu[0] or gpu[1].startswith(name) for name in names)]
        return tuple(int(memory) * 2**20 for _, _, memory in gpus)
    except (OSError, subprocess.SubprocessError, ValueError):  # no driver, or a broken one
        return ()
