"""Progress of a job, in one line."""

from __future__ import annotations

import math
import time

from framefleet.cluster.driver.progress import Progress
from framefleet.jobs.show.progress_values import Awaited, Checked, ClipsProgress, Standing, TrainProgress
from framefleet.pipeline.training.reports import Preparing


def headline(standing: Standing) -> str:
    """Return all counts in one line."""
    match standing:
        case Awaited():
            return f"{standing.what} ({duration(time.monotonic() - standing.since)})"
        case Checked():
            return f"{standing.num_rows:,} rows checked"
        case ClipsProgress():
            return ", ".join(_of_clips(standing))
        case Preparing():
            return f"{standing.done:,} of {standing.total:,} rows prepared"
        case Progress():
            return ", ".join(_of_rows(standing))
        case TrainProgress():
            return ", ".join(_of_steps(standing))


def duration(seconds: float) -> str:
    """Return 75 seconds as 1:15, and 3,700 as 1:01:40."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _of_rows(progress: Progress) -> list[str]:
    parts = [f"{progress.done:,}/{progress.total:,} rows"]
    if progress.rows_per_s is not None:
        parts.append(f"{progress.rows_per_s:.2f} rows/s")
    if progress.eta_s is not None:
        parts.append(f"{duration(progress.eta_s)} left")
    if progress.mean_batch is not None:
        parts.append(f"mean batch {progress.mean_batch:.1f}")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.paused_since:
        parts.append(f"paused since {progress.paused_since}")
    elif not progress.workers:
        parts.append(f"{progress.waiting_for or 'workers are starting'} ({duration(progress.elapsed_s)})")
    elif not progress.done and progress.in_flight:
        parts.append(f"first clips under way ({duration(progress.elapsed_s)})")
    return parts


def _of_steps(progress: TrainProgress) -> list[str]:
    parts = [f"{progress.done:,}/{progress.total:,} steps", f"loss {progress.loss:.4g}"]
    if progress.steps_per_s is not None:
        rate = progress.steps_per_s
        parts.append(f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step")
    if progress.eta_s is not None:
        parts.append(f"{duration(progress.eta_s)} left")
    parts.append(f"learning rate {progress.learning_rate:.2g}")
    if progress.kept:
        parts.append(f"checkpoint {progress.kept:,}")
    return parts


def _of_clips(progress: ClipsProgress) -> list[str]:
    parts = [f"{progress.done:,}/{progress.total:,} clips {progress.doing}"]
    if progress.bytes_per_s is not None:
        parts.append(f"{progress.bytes_per_s / 1e6:.1f} MB/s")
    elif progress.clips_per_s is not None:
        parts.append(f"{progress.clips_per_s:.1f} clips/s")
    if progress.eta_s is not None:
        parts.append(f"{duration(progress.eta_s)} left")
    return parts
