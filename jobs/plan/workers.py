"""How many workers a job's fleet has, before one is started: as it says, or by this machine's cores."""

from __future__ import annotations

import functools
import os
import subprocess

from framefleet.jobs.job.schema import Job
from framefleet.pipeline.errors import JobError

_ASK_S = 5.0  # of a driver that hangs
_ASK = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")


def num_workers_of(job: Job) -> int:
    """Return it. Raises JobError for a cluster's, which only the cluster knows."""
    fleet = job.fleet
    if fleet.workers != "auto":
        return fleet.workers
    if fleet.address is not None:
        raise JobError(
            f"the cluster at {fleet.address} has as many workers as it has room for",
            "say for how many the time is wanted: --set fleet.workers=8",
        )
    gpus = 0 if job.model.device == "cpu" else len(gpus_here())
    if fleet.gpus_per_worker != 0 and gpus:
        return max(1, int(gpus / fleet.paid_gpus))
    return max(1, int((os.cpu_count() or 1) / max(1, fleet.worker_cpus())))


@functools.cache
def gpus_here() -> tuple[int, ...]:
    """Return the memory of each in bytes; none without NVIDIA's driver."""
    try:
        said = subprocess.run(_ASK, capture_output=True, text=True, timeout=_ASK_S, check=True).stdout
        return tuple(int(line) * 2**20 for line in said.split())
    except (OSError, subprocess.SubprocessError, ValueError):  # no driver, or it is not well
        return ()
