"""From a training to what one of its steps takes here: a few steps on its first rows, kept nowhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from statistics import median

import torch

from framefleet.jobs.show.watch import Watch, wait_for
from framefleet.jobs.train.resolve import ResolvedTraining
from framefleet.jobs.train.train import training_of
from framefleet.pipeline.training.dataset.batches import Batches
from framefleet.pipeline.training.dataset.rows import TrainingRows
from framefleet.pipeline.training.reports import Step, TrainingReport
from framefleet.pipeline.training.run import run_training
from framefleet.pipeline.training.task import TrainingRow
from framefleet.pipeline.training.world import World

NUM_STEPS = 6  # the first finds kernels and makes the optimizer's moments


def seconds_per_step(resolved: ResolvedTraining, rows: TrainingRows, watch: Watch) -> float:
    """Return the median of some steps, of one worker. resolved: with an output that is thrown away."""
    wait_for(watch, "training a few steps")
    device = resolved.model.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    few = TrainingRows(_first(rows, resolved))
    settings = resolved.job.train.model_copy(
        update={"steps": NUM_STEPS, "checkpoint_every": NUM_STEPS + 1, "samples": [], "sample_every": None}
    )
    training = replace(training_of(resolved, few), settings=settings, samples=())
    times: list[float] = []

    def tell(report: TrainingReport) -> None:
        if isinstance(report, Step):
            times.append(time.perf_counter())

    model = replace(training.model, device=device)
    run_training(replace(training, model=model), World(rank=0, size=1, device=torch.device(device)), tell)
    return median(after - before for before, after in pairwise(times))


def _first(rows: TrainingRows, resolved: ResolvedTraining) -> Iterator[TrainingRow]:
    """Yield the rows of the first steps: what is trained on is encoded before, which takes its time."""
    batches = Batches.of(rows, resolved.job.train, world_size=1)
    wanted = {
        position
        for step in range(NUM_STEPS)
        for micro in range(resolved.job.train.accumulation)
        for position in batches.rows_of(step, micro, 0)
    }
    return (rows[position] for position in sorted(wanted))
