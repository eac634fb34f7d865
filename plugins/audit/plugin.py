"""Register `framefleet audit`, and `audit.against` of a job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from framefleet.api import Listener, Plugin
from framefleet.api.errors import FramefleetError, count_text

if TYPE_CHECKING:
    from framefleet.api.commands import Watch
    from framefleet.api.jobs import Job, Summary

log = logging.getLogger(__name__)


class AuditListener(Listener):
    def check(self, job: Job) -> None:
        if job.audit.against is None:
            return
        from framefleet.api.jobs import open_models
        from framefleet.pipeline.guards.mistakes import naming_model
        from framefleet.plugins.audit.audit import job_of_plain_calls

        with naming_model("audit.against.model"):
            open_models(job_of_plain_calls(job))

    def running(self, job: Job) -> AbstractContextManager[Callable[[Summary], None]]:
        self.check(job)  # before the first row is paid for
        return super().running(job)

    def rendered(self, job: Job, watch: Watch) -> None:
        if job.audit.against is None:
            return
        from framefleet.api.jobs import store_of_job
        from framefleet.api.outputs import Output
        from framefleet.plugins.audit.audit import audit_job

        if num_left := Output(store_of_job(job)).counts().left:  # as after a budget, or --limit
            watch.say(f"audit: {count_text(num_left, 'row')} left; all are compared when they have ended")
            return
        try:
            report = audit_job(job, watch)
        except FramefleetError as error:  # the clips' records are complete anyway
            log.warning("not compared with plain calls: %s; %s", error.problem, error.fix)
        else:
            watch.say(f"audit: {report.bound}, against {report.against}")


PLUGIN = Plugin(
    commands={"Check and repair": ["framefleet.plugins.audit.command:audit_command"]},
    files={"audits": "derived"},
    command_columns={"exactness": ("audit",)},
    listeners=["framefleet.plugins.audit.plugin:AuditListener"],
)
