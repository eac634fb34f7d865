"""How many workers a job's fleet has, before one is started: as it says, or by this machine's cores."""

from __future__ import annotations

import os

from framefleet.jobs.job.schema import Job
from framefleet.jobs.plan.graphics import gpus_here
from framefleet.pipeline.errors import JobError


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
