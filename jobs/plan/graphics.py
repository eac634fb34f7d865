"""The GPUs of this machine, asked of NVIDIA's driver: torch would take seconds to import."""

from __future__ import annotations

import functools
import subprocess

_ASK_S = 5.0  # of a driver that hangs
_ASK = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")


@functools.cache
def gpus_here() -> tuple[int, ...]:
    """Return the memory of each in bytes; none without NVIDIA's driver."""
    try:
        said = subprocess.run(_ASK, capture_output=True, text=True, timeout=_ASK_S, check=True).stdout
        return tuple(int(line) * 2**20 for line in said.split())
    except (OSError, subprocess.SubprocessError, ValueError):  # no driver, or it is not well
        return ()
