"""What `framefleet plan` prints about a training."""

from __future__ import annotations

import json
from dataclasses import asdict

from framefleet.jobs.job.schema import TrainJob
from framefleet.jobs.plan.shown import counted
from framefleet.jobs.plan.training import TrainPlan, plan_train_job
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.headline import duration
from framefleet.jobs.show.libraries import quiet_libraries
from framefleet.jobs.show.progress import watch_on
from framefleet.pipeline.shape import SHAPE_ORDER


def show_train_plan(job: TrainJob, *, probe: bool, as_json: bool) -> None:
    """Print what training a job would do."""
    quiet_libraries()
    with watch_on(stderr) as watch:
        plan = plan_train_job(job, watch, probe=probe)
    if as_json:
        stdout.say(json.dumps(asdict(plan) | {"elapsed_s": plan.elapsed_s}, ensure_ascii=False))
    else:
        _show(plan)


def _show(plan: TrainPlan) -> None:
    stdout.say(f"table:  {plan.table}")
    stdout.say(f"output: {plan.output}")
    stdout.say(f"model:  {plan.model} ({plan.pipeline}), of which {plan.component} is trained")
    stdout.print(counted(f"bucket ({SHAPE_ORDER})", "rows", plan.buckets))
    for bucket, count in plan.unused.items():
        stdout.say(f"never used: {count:,} rows of {bucket}: a batch is of one size")
    workers = f"{plan.num_workers} workers" if plan.num_workers else "1 worker"
    stdout.say(
        f"{plan.steps:,} steps of {plan.rows_per_step:,} rows with {workers}: {plan.epochs:.3g} epochs of "
        f"{plan.num_rows:,} rows"
    )
    stdout.say(f"memory: about {plan.weights_gb:.1f} GB for weights, gradients and moments, and activations")
    if plan.seconds_per_step is not None and plan.elapsed_s is not None:
        stdout.say(f"predicted: {plan.seconds_per_step:.3g} s a step here, {duration(plan.elapsed_s)} in all")
