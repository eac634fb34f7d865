"""Estimate the memory of a model's largest row, and whether it fits where the job renders it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial

from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.jobs.render.survey import Survey
from framefleet.pipeline.model.options.schema import GroupOffload
from framefleet.pipeline.render.findings_storage import Found, Places, memory_name
from framefleet.pipeline.request import one_step
from framefleet.plugins.forecast.job_plan import PlanOptions
from framefleet.plugins.memory.footprint import way_of
from framefleet.plugins.memory.memory import Memory, MemoryCounts, estimate, native_row
from framefleet.plugins.memory.room import gpus_here, room_of


def memory_of(resolved: ResolvedJob, name: str, survey: Survey, wanted: PlanOptions) -> Memory:
    """Return the memory of a model's largest row, and whether it fits where the job renders it."""
    job, model = resolved.job, resolved.models[name]
    settings = model.settings
    largest, own = survey.largest(model=name), way_of(settings.options)
    # Workers have no GPU if the job says so, or if there is none here and the job does not join a cluster.
    is_on_cpu = wanted.gpu_memory is None and (
        settings.device == "cpu"
        or job.fleet.gpus_per_worker == 0
        or (job.fleet.gpus_per_worker == "auto" and job.fleet.address is None and not gpus_here())
    )
    cpu_workers, num_gpus = None, max(1, int(job.fleet.paid_gpus))
    if is_on_cpu:  # in a cluster, on any of its machines
        most = 1 if job.fleet.address else job.fleet.most_on_cpu
        cpu_workers, num_gpus = max(1, min(most, survey.num_rows)), 1
        if not (isinstance(group := settings.options.offload, GroupOffload) and group.disk):
            own = replace(own, offload="none")  # on a CPU, offloaded weights stay in the same memory
    elif settings.placement:
        num_gpus = settings.placement.devices or num_gpus
    measured_bytes = None
    if largest and not is_on_cpu:  # as workers have measured it, on any kind of GPU
        stored = memory_name(model.identity.model_digest, settings, one_step(largest))
        memory = (Places(resolved.store).read(stored) or Found()).memory
        measured_bytes = max((one.peak_bytes for one in memory), default=None)
    recipes = job.folder or "" if wanted.hollow or wanted.probe else None
    counts = MemoryCounts(
        settings, model.weights, model.spec, model.configs, is_on_cpu=is_on_cpu, recipes=recipes
    )
    with closing(counts):
        return estimate(
            partial(counts.count, largest or native_row(model.spec)),
            own,
            place=room_of(wanted.gpu_memory, cpu_workers=cpu_workers, share=min(1, job.fleet.paid_gpus)),
            measured_bytes=measured_bytes,
            is_half=counts.is_half,
            placement=settings.placement,
            num_gpus=num_gpus,
            cpu_workers=cpu_workers,
        )
