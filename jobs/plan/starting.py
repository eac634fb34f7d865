"""How long a run takes until its workers load their models: imports are timed, Ray's start is assumed."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from framefleet.cluster.fleet.warm import server
from framefleet.cluster.fleet.warm.start import environment_of_imports
from framefleet.jobs.plan.prediction import Took

COMMAND_S = 1.5  # of the command, before anything is begun beside it
# Ray's own processes and the driver's share in them, on a core of a cloud machine.
RAY = Took(wall_s=5.0, cpu_s=9.0)


def starting_s(imports: Took, *, is_beside: bool, num_cores: int) -> float:
    """Return it. is_beside: workers are forks of one process, which imports while Ray starts."""
    if not is_beside:
        return COMMAND_S + RAY.wall_s + imports.wall_s
    return COMMAND_S + max(RAY.wall_s, imports.wall_s, (RAY + imports).cpu_s / num_cores)


def time_imports(*, threads: int) -> Took:
    """Have a process import what a worker does."""
    before, began = _cpu_s(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", "-c", f"from {server.__name__} import import_all; import_all()"],
        env=environment_of_imports(threads=threads),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # what libraries say as they are imported; a worker says it too
        check=True,
    )
    return Took(wall_s=time.perf_counter() - began, cpu_s=_cpu_s() - before)


def _cpu_s() -> float:
    """Return what processes took that this one started, and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
