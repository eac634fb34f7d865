"""What a training would do: its rows by bucket, steps, epochs, memory, and time per step."""

from __future__ import annotations

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from framefleet.api.commands import Callback, Overview, Watch, wait_for
from framefleet.api.errors import FarEnough, JobError, count_text, rounded
from framefleet.api.jobs import load_job
from framefleet.api.models import source_of, weights_of
from framefleet.api.outputs import Store
from framefleet.jobs.job.file import check_gpu
from framefleet.pipeline.model.sources.selection import is_weights
from framefleet.plugins.memory.footprint import GB
from framefleet.plugins.train.dataset.batches import Batches, TrainingRows
from framefleet.plugins.train.job import TrainJob
from framefleet.plugins.train.reports import Step, TrainingReport
from framefleet.plugins.train.resolve import ResolvedTraining, check_output, resolve_training, survey_training
from framefleet.plugins.train.train import training_of
from framefleet.plugins.train.trainers import train_here

log = logging.getLogger(__name__)

NUM_STEPS = 6  # the first finds kernels and makes the optimizer's moments

# Of each weight that is trained, in fp32: itself, its gradient, and two moments of AdamW.
TRAINED_COPIES = 4


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrainPlan(Overview):
    """What a training would do."""

    table: str
    output: str
    model: str
    pipeline: str
    component: str
    num_rows: int  # rows that can be trained on
    buckets: Mapping[str, int]  # these rows by shape
    unused: Mapping[str, int]  # by shape: rows that are never used
    num_workers: int | None  # None if the fleet decides
    rows_per_step: int
    steps: int
    epochs: float  # passes over the rows
    weights_gb: float  # of weights, gradients and moments, without activations
    seconds_per_step: float | None = None  # on this machine; None: not probed

    def overview(self) -> Mapping[str, object]:
        time = None if self.elapsed_s is None else timedelta(seconds=round(self.elapsed_s))
        return {
            "rows": f"{self.num_rows:,}, {sum(self.unused.values()):,} of them never used",
            "steps": f"{self.steps:,} of {count_text(self.rows_per_step, 'row')}: "
            f"{rounded(self.epochs)} epochs",
            "model": f"{self.model} ({self.pipeline}, {self.component})",
            "memory": f"{self.weights_gb:.1f} GB, without activations",
            "time": time,
            "output": self.output,
        }

    @property
    def elapsed_s(self) -> float | None:
        """What all steps take; None: not probed."""
        return None if self.seconds_per_step is None else self.seconds_per_step * self.steps


def plan_training(job: TrainJob | str | Path | Mapping[str, Any], *, probe: bool = False) -> TrainPlan:
    """Return what training a job would do; writes nothing to its output.

    job: a job file's path, or its content. probe: train a few steps here, and measure one. Raises
    FramefleetError as `train` would.
    """
    return plan_train_job(load_job(job, kind=TrainJob), Callback(), probe=probe)


def plan_train_job(job: TrainJob, watch: Watch, *, probe: bool = False) -> TrainPlan:
    """Do what `plan_training` promises, reporting to `watch`."""
    try:
        check_gpu(job)
    except JobError as error:  # another machine may train it
        log.warning("`train` would stop here: %s; %s", error.problem, error.fix)
    resolved = resolve_training(job, watch)
    num_workers = job.fleet.max_workers
    check_output(resolved, workers=num_workers)
    with tempfile.TemporaryDirectory(prefix="framefleet-plan-") as folder:
        # With another output: what is found out is not kept.
        aside = replace(resolved, store=Store(folder), prepared=Store(folder))
        rows = survey_training(aside, watch)
        batches = Batches(rows, job.train, world_size=num_workers or 1)
        seconds = seconds_per_step(aside, rows, watch) if probe else None
    return TrainPlan(
        table=resolved.columns.table.location,
        output=resolved.store.url_of(""),
        model=resolved.model.name,
        pipeline=resolved.spec.class_name,
        component=resolved.component,
        num_rows=len(rows),
        buckets={str(bucket): count for bucket, count in Counter(rows.buckets()).most_common()},
        unused={str(bucket): count for bucket, count in batches.unused().items()},
        num_workers=num_workers,
        rows_per_step=batches.rows_per_step,
        steps=job.train.steps,
        epochs=job.train.steps / batches.steps_per_epoch,
        weights_gb=_weights_gb(resolved),
        seconds_per_step=seconds,
    )


def _weights_gb(resolved: ResolvedTraining) -> float:
    """Return what all weights take as they are stored, and those that are trained with all that they need."""
    job, spec = resolved.job, resolved.spec
    weights = weights_of(resolved.model, source_of(resolved.model))
    sizes = {file: weights.source.files[file].size for file in weights.files if is_weights(file)}
    trained = sum(size for file, size in sizes.items() if file.startswith(f"{resolved.component}/"))
    others = sum(sizes.values()) - trained
    if job.train.lora:  # its own weights are a hundredth of these
        return (others + trained) / GB
    millions = spec.preset.parameters.get(resolved.component) if spec.preset else None
    fp32 = millions * 4 * 10**6 if millions else trained
    return (others + fp32 * TRAINED_COPIES) / GB


def seconds_per_step(resolved: ResolvedTraining, rows: TrainingRows, watch: Watch) -> float:
    """Return the median of some steps, of one worker. resolved: with an output that is thrown away."""
    wait_for(watch, "training a few steps")
    # Only the rows of these steps: what is trained on is encoded before, which takes its time.
    batches = Batches(rows, resolved.job.train, world_size=1)
    wanted = {
        position
        for step in range(NUM_STEPS)
        for micro in range(resolved.job.train.accumulation)
        for position in batches.rows_of(step, micro, 0)
    }
    few = TrainingRows(rows[position] for position in sorted(wanted))
    # The last step, which would be followed by a checkpoint and the whole model, is never reached.
    end = NUM_STEPS + 1
    settings = resolved.job.train.model_copy(
        update={"steps": end, "checkpoint_every": end, "samples": [], "sample_every": None}
    )
    training = replace(training_of(resolved, few), settings=settings, samples=())
    times: list[float] = []

    def note(report: TrainingReport) -> None:
        if isinstance(report, Step):
            times.append(time.perf_counter())
            if len(times) == NUM_STEPS:
                raise FarEnough

    with suppress(FarEnough):
        train_here(training, note)
    return median(after - before for before, after in pairwise(times))
