"""Job files with the section `train`: what they hold, and what `framefleet plan` prints about them."""

from __future__ import annotations

from framefleet.doors import JobKind
from framefleet.plugins.train.job import TrainJob


def _show_plan(job: TrainJob, *, probe: bool, as_json: bool) -> None:
    from framefleet.plugins.train.show_plan import show_train_plan

    show_train_plan(job, probe=probe, as_json=as_json)


TRAINING_KIND = JobKind(schema=TrainJob, show_plan=_show_plan)
