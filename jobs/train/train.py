"""From a job to trained weights: resolved, surveyed, claimed, then driven to its last step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.fleet.training import Trainers
from framefleet.jobs.job.file import job_as
from framefleet.jobs.job.schema import TrainJob
from framefleet.jobs.show.progress_values import TrainProgress
from framefleet.jobs.show.watch import Callback, Watch
from framefleet.jobs.train.claim import as_begun, check_output, claim_training
from framefleet.jobs.train.loss_curve import write_loss_curve
from framefleet.jobs.train.resolve import ResolvedTraining, resolve_training
from framefleet.jobs.train.survey import survey_training
from framefleet.pipeline.training.dataset.batches import Batches
from framefleet.pipeline.training.dataset.rows import TrainingRows
from framefleet.pipeline.training.reports import Kept, Preparing, Step, TrainingReport
from framefleet.pipeline.training.results.finish import read_finished
from framefleet.pipeline.training.settings import TrainSettings
from framefleet.pipeline.training.training import Training

# Losses jump with the noise that was drawn: the mean of some shows where they go.
STEPS_SHOWN = 20


class Pace:
    """Follows one run."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._losses: deque[float] = deque(maxlen=STEPS_SHOWN)
        self._times: deque[float] = deque(maxlen=STEPS_SHOWN)
        self.kept = 0
        self.num_steps = 0

    def stepped(self, step: Step, now: float) -> TrainProgress:
        """Return where the training stands after a step. now: any steadily rising seconds."""
        self.num_steps += 1
        self._losses.append(step.loss)
        self._times.append(now)
        passed = self._times[-1] - self._times[0]
        rate = (len(self._times) - 1) / passed if passed > 0 else None
        done = step.step + 1
        return TrainProgress(
            done=done,
            total=self._total,
            loss=sum(self._losses) / len(self._losses),
            learning_rate=step.learning_rate,
            steps_per_s=rate,
            eta_s=(self._total - done) / rate if rate else None,
            kept=self.kept,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSummary:
    """How a run ended. steps: of the whole training; steps_done: of this run. result: where weights are."""

    steps: int
    steps_done: int
    elapsed_s: float
    result: str


def train(
    job: TrainJob | str | Path | Mapping[str, Any],
    *,
    on_progress: Callable[[TrainProgress], None] | None = None,
) -> TrainSummary:
    """Train what a job says, or go on with it; return when its weights are written.

    job: a job file's path, or its content. Raises FramefleetError when nothing could be started, or when
    fleet or store were lost; the last checkpoint stays, and the same call goes on from there.
    """
    return train_job(job_as(TrainJob, job), Callback(on_progress))


def train_job(job: TrainJob, watch: Watch) -> TrainSummary:
    """Do what `train` promises, and report to `watch`."""
    started = time.monotonic()
    resolved = as_begun(resolve_training(job, watch))
    asked = job.fleet.max_workers
    check_output(resolved, workers=asked)  # before the lock, which leaves its file in what is another's
    with (
        DriverLock(resolved.store) as lock,
        Trainers(job.fleet, threads=job.model.threads, device=job.model.device) as trainers,
    ):
        check_output(resolved, workers=trainers.num_workers)
        rows = survey_training(resolved, watch)
        say_plan(job.train, Batches.of(rows, job.train, world_size=trainers.num_workers), watch)
        claim_training(resolved, rows, workers=trainers.num_workers)
        pace = Pace(job.train.steps)
        finished = read_finished(resolved.store)
        if finished is None or finished.steps != job.train.steps:
            lock.check()
            trainers.run(training_of(resolved, rows), _Telling(resolved, watch, pace, lock))
            write_loss_curve(resolved.store)
            finished = read_finished(resolved.store)
            assert finished is not None and finished.steps == job.train.steps
    return TrainSummary(
        steps=finished.steps,
        steps_done=pace.num_steps,
        elapsed_s=time.monotonic() - started,
        result=resolved.store.url_of(finished.result),
    )


def say_plan(settings: TrainSettings, batches: Batches, watch: Watch) -> None:
    """Say how far the rows go, and which ones are of no use."""
    epochs = settings.steps / batches.steps_per_epoch
    watch.say(f"{settings.steps:,} steps of {batches.rows_per_step:,} rows: {epochs:.3g} epochs")
    for bucket, count in batches.unused().items():
        watch.say(
            f"{count:,} rows of {bucket} are never used: a batch has {settings.batch_size:,} of one size"
        )


def training_of(resolved: ResolvedTraining, rows: TrainingRows) -> Training:
    """Return what workers are given."""
    return Training(
        model=resolved.model,
        files=resolved.files,
        digest=resolved.digest,
        rows=rows,
        settings=resolved.job.train,
        store=resolved.store,
        prepared=resolved.prepared,
        inputs=resolved.inputs,
        samples=resolved.samples,
    )


class _Telling:
    """From what a training reports to what `watch` shows."""

    def __init__(self, resolved: ResolvedTraining, watch: Watch, pace: Pace, lock: DriverLock) -> None:
        self._store, self._watch, self._pace, self._lock = resolved.store, watch, pace, lock

    def __call__(self, report: TrainingReport) -> None:
        match report:
            case Step():
                self._watch.show(self._pace.stepped(report, time.monotonic()))
            case Preparing():
                self._watch.show(report)
            case Kept():
                self._lock.check()  # another driver would remove what is being written
                self._pace.kept = report.steps
                write_loss_curve(self._store)
            case str():
                self._watch.say(report)
