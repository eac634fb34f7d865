"""From a job and the rows that are left to what rendering them takes, by rendering some here."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import replace

from framefleet.cluster.driver.feed import Pending, pending_rows
from framefleet.cluster.fleet.warm import server
from framefleet.cluster.fleet.warm.start import environment_of_imports, may_fork
from framefleet.jobs.job.schema import Job
from framefleet.jobs.plan.memory import gpus_here
from framefleet.jobs.render.lanes import setup_of
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.jobs.show.watch import Watch, wait_for
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.rows.lane_key import LaneKey, lane_of
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.plugins.forecast.prediction import Kinds, Prediction, Took, in_turn, predict

COMMAND_S = 1.5  # of the command, before anything starts in the background
# Ray's own processes and the driver's share in them, on a core of a cloud machine.
RAY = Took(wall_s=5.0, cpu_s=9.0)


def num_workers_of(job: Job) -> int:
    """Return the number of workers that a job starts. JobError if it joins a cluster, which decides that."""
    fleet = job.fleet
    if fleet.max_workers is not None:
        return fleet.max_workers
    if fleet.address is not None:
        raise JobError(
            f"the cluster at {fleet.address} has as many workers as it has room for",
            "give the number of workers to predict for: --set fleet.workers=8",
        )
    are_on_cpu = all(model.device == "cpu" for model in job.by_name.values())
    gpus = 0 if are_on_cpu else len(gpus_here())
    if fleet.gpus_per_worker != 0 and gpus:
        return max(1, int(gpus / fleet.paid_gpus))
    return max(1, int((os.cpu_count() or 1) / max(1, fleet.worker_cpus())))


def predict_job(
    resolved: ResolvedJob, index: RowIndex, watch: Watch, *, price: float | None, num_audits: float
) -> Prediction:
    """Render some rows of each kind, and predict what the rest takes: one lane after the other."""
    by_lane: dict[LaneKey, Kinds] = {}
    for row in pending_rows(resolved.table, resolved.rows, index):
        if isinstance(row.payload, Pending):
            request = row.payload.request
            new = Kinds(remembers_texts=resolved.recipes[request.recipe].is_batched)
            by_lane.setdefault(lane_of(request), new).add(row.shape, request)
    by_lane = dict(sorted(by_lane.items(), key=lambda one: one[0].recipe))  # a user's code runs last
    job, num_rows = resolved.job, sum(kinds.num_rows for kinds in by_lane.values())
    settings, num_cores = resolved.first.settings, os.cpu_count() or 1
    wait_for(watch, "importing libraries, as a worker does")
    is_forked = may_fork(job.fleet, device=settings.device)
    starts_s = starting_s(time_imports(threads=settings.threads), is_forked=is_forked, num_cores=num_cores)
    joined = in_turn(
        [
            _predict_lane(
                resolved, lane, kinds, watch, price=price, num_audits=num_audits * kinds.num_rows / num_rows
            )
            for lane, kinds in by_lane.items()
        ]
    )
    return replace(joined, elapsed_s=joined.elapsed_s + starts_s, start_s=joined.start_s + starts_s)


def _predict_lane(
    resolved: ResolvedJob,
    lane: LaneKey,
    kinds: Kinds,
    watch: Watch,
    *,
    price: float | None,
    num_audits: float,
) -> Prediction:
    """Predict what the rows of one lane take, once workers have started."""
    from framefleet.plugins.forecast.trial import MAX_TRIED, try_rows  # imports torch

    job, num_workers = resolved.job, num_workers_of(resolved.job)
    setup, identity = setup_of(resolved, lane), resolved.models[lane.model].identity
    tried = kinds.most_frequent(MAX_TRIED)
    load, kinds_tried = try_rows(setup, identity, tried, watch, num_workers=num_workers)
    return predict(
        kinds_tried,
        num_rows=kinds.num_rows,
        num_texts=kinds.num_texts,
        num_audits=num_audits,
        load=load,
        starting_s=0.0,
        num_workers=num_workers,
        num_cores=os.cpu_count() or 1,
        price=price if price is not None else job.budget.price,
        gpus_per_worker=job.fleet.paid_gpus,
    )


def starting_s(imports: Took, *, is_forked: bool, num_cores: int) -> float:
    """Return the seconds until a worker can load a model.

    is_forked: workers are forks of one process, which imports while Ray starts.
    """
    if not is_forked:
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
