"""What `framefleet train` does with a checked job, and what it prints about it."""

from __future__ import annotations

from framefleet.jobs.commands import quiet_libraries
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.progress import duration, watch_on
from framefleet.jobs.train.schema import TrainJob


def train_command(job: TrainJob) -> None:
    """Train; print where the weights are."""
    quiet_libraries()
    from framefleet.jobs.train.train import train_job

    with watch_on(stderr) as watch:
        summary = train_job(job, watch)
    if summary.steps_done:
        said = f"{summary.steps_done:,} steps trained in {duration(summary.elapsed_s)}"
    else:
        said = f"nothing to do: all {summary.steps:,} steps are trained"
    stderr.print(said, markup=False, soft_wrap=True)
    stdout.print(summary.result, markup=False, soft_wrap=True)
