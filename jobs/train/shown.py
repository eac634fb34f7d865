"""What `framefleet train` does with a checked job, and what it prints about it."""

from __future__ import annotations

import json
from dataclasses import asdict

from framefleet.jobs.job.schema import TrainJob
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.headline import duration
from framefleet.jobs.show.libraries import quiet_libraries
from framefleet.jobs.show.progress import watch_on


def show_train(job: TrainJob, *, as_json: bool = False, quiet: bool = False) -> None:
    """Train; print where the weights are, or the whole summary as JSON."""
    quiet_libraries()
    from framefleet.jobs.train.train import train_job

    with watch_on(stderr, quiet=quiet) as watch:
        summary = train_job(job, watch)
    if as_json:
        stdout.say(json.dumps(asdict(summary)))
        return
    if quiet:
        pass
    elif summary.steps_done:
        stderr.say(f"{summary.steps_done:,} steps trained in {duration(summary.elapsed_s)}")
    else:
        stderr.say(f"nothing to do: all {summary.steps:,} steps are trained")
    stdout.say(summary.result)
