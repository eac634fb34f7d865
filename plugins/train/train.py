"""Trains a job's weights: resolves, surveys and claims the job, then drives it to its last step."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from framefleet.api.commands import Callback, Overview, Watch
from framefleet.api.errors import count_text, rounded
from framefleet.api.jobs import load_job
from framefleet.api.outputs import DriverLock, Store
from framefleet.cluster.driver.lock import STOP
from framefleet.cluster.driver.stop import Stop
from framefleet.jobs.job.file import check_gpu
from framefleet.plugins.train import resolve
from framefleet.plugins.train.dataset.batches import Batches, TrainingRows
from framefleet.plugins.train.finish import read_finished
from framefleet.plugins.train.job import TrainJob, TrainSettings
from framefleet.plugins.train.reports import Kept, Preparing, Step, TrainingReport, TrainProgress, read_losses
from framefleet.plugins.train.run import Training
from framefleet.plugins.train.trainers import start_trainers

# Losses jump with the noise that was drawn: the mean of some shows where they go.
STEPS_SHOWN = 20
_PATH = "loss.png"
CURVE_SIZE, _DPI = (960, 540), 100  # pixels
_RAW, _SMOOTH, _GRID = "#b7ccf0", "#1f57b8", "#e2e4e9"
# The line is a mean over this part of all steps to both sides, and at least over this many.
_SMOOTHED_SHARE, _SMOOTHED = 50, 3


class Pace:
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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TrainSummary(Overview):
    """How a run ended. steps: of the whole training; steps_done: of this run. result: where weights are."""

    steps: int
    steps_done: int
    elapsed_s: float
    result: str

    def overview(self) -> Mapping[str, object]:
        return {
            "steps": f"{self.steps_done:,} in this run, {self.steps:,} in all",
            "time": timedelta(seconds=round(self.elapsed_s)),
            "weights": self.result,
        }


def train(
    job: TrainJob | str | Path | Mapping[str, Any],
    *,
    on_progress: Callable[[TrainProgress], None] | None = None,
) -> TrainSummary:
    """Train what a job says, or continue it; return when its weights are written.

    job: a job file's path, or its content. Raises FramefleetError when nothing could be started, or when
    fleet or store were lost; the last checkpoint stays, and the same call continues from there.
    """
    return train_job(load_job(job, kind=TrainJob), Callback(on_progress, TrainProgress))


def train_job(job: TrainJob, watch: Watch) -> TrainSummary:
    """Do what `train` promises, and report to `watch`."""
    started = time.monotonic()
    check_gpu(job)
    resolved = resolve.resolve_training(job, watch)
    num_workers = job.fleet.max_workers
    # Before the lock, which leaves its file in what is another's.
    resolve.check_output(resolved, workers=num_workers)
    with (
        DriverLock(resolved.store) as lock,
        start_trainers(job.fleet, threads=job.model.threads, device=job.model.device) as trainers,
        ExitStack() as stepping,
    ):
        resolve.check_output(resolved, workers=trainers.num_workers)
        rows = resolve.survey_training(resolved, watch)
        say_plan(job.train, Batches(rows, job.train, world_size=trainers.num_workers), watch)
        resolve.claim_training(resolved, rows, workers=trainers.num_workers)
        pace, stop = Pace(job.train.steps), Stop()

        def is_ending() -> bool:
            if stop.is_urgent:
                raise KeyboardInterrupt
            return stop.is_asked or STOP in lock.asked

        def tell(report: TrainingReport) -> None:
            match report:
                case Step():
                    if not pace.num_steps:
                        stepping.enter_context(stop)
                    watch.show(pace.stepped(report, time.monotonic()))
                case Preparing():
                    watch.show(report)
                case Kept():
                    lock.check()  # another driver would remove what is being written
                    pace.kept = report.steps
                    write_loss_curve(resolved.store)
                case str():
                    watch.say(report)
            if is_ending() and (isinstance(report, Kept) or not pace.num_steps):
                watch.say(
                    f"asked to end: {count_text(pace.kept, 'step')} saved" if pace.kept else "asked to end"
                )
                stop.check()
                raise KeyboardInterrupt

        finished = read_finished(resolved.store)
        if finished is None or finished.steps != job.train.steps:
            lock.check()
            trainers.run(training_of(resolved, rows), tell, is_ending)
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
    epochs = settings.steps / batches.steps_per_epoch
    rows = count_text(batches.rows_per_step, "row")
    watch.say(f"{count_text(settings.steps, 'step')} of {rows}: {rounded(epochs)} epochs")
    for bucket, count in batches.unused().items():
        rows = count_text(count, "row")
        watch.say(f"never used: {rows} of {bucket}: a batch has {settings.batch_size:,} of one size")


def training_of(resolved: resolve.ResolvedTraining, rows: TrainingRows) -> Training:
    return Training(
        model=resolved.model,
        files=resolved.files,
        rows=rows,
        settings=resolved.job.train,
        store=resolved.store,
        prepared=resolved.prepared,
        inputs=resolved.inputs,
        samples=resolved.samples,
    )


def write_loss_curve(store: Store) -> None:
    """Draw the losses so far. Without any step, or without matplotlib (framefleet[train]), draw nothing."""
    steps = read_losses(store)
    if steps and find_spec("matplotlib"):
        store.write(_PATH, loss_curve([step.loss for step in steps]))


def loss_curve(losses: Sequence[float]) -> bytes:
    """Return a PNG of losses by step, on a logarithmic axis."""
    from matplotlib.figure import Figure  # half a second

    raw = np.maximum(np.asarray(losses, dtype=np.float64), 1e-12)
    low, high = np.quantile(raw, [0.005, 0.995])  # a single odd step must not flatten all others
    margin = max((high / low) ** 0.05, 1.02)
    figure = Figure(figsize=(CURVE_SIZE[0] / _DPI, CURVE_SIZE[1] / _DPI), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot(yscale="log", xlabel="steps", ylabel="loss", ylim=(low / margin, high * margin))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y", which="both", color=_GRID)
    steps, marker = np.arange(1, len(raw) + 1), "." if len(raw) == 1 else ""
    axes.plot(steps, raw, marker=marker, color=_RAW, linewidth=1)
    half = max(len(raw) // _SMOOTHED_SHARE, _SMOOTHED)
    sums = np.concatenate([[0.0], np.cumsum(raw)])
    first = np.maximum(np.arange(len(raw)) - half, 0)
    last = np.minimum(np.arange(len(raw)) + half + 1, len(raw))
    axes.plot(steps, (sums[last] - sums[first]) / (last - first), marker=marker, color=_SMOOTH, linewidth=2)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
