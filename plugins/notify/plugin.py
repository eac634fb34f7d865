"""The section `on_end` of a job: who hears how a run has ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from framefleet.doors import Listener, Plugin

if TYPE_CHECKING:
    from framefleet.cluster.driver.progress import Summary
    from framefleet.jobs.job.schema import Job


class EndListener(Listener):
    def running(self, job: Job) -> AbstractContextManager[Callable[[Summary], None]]:
        from framefleet.plugins.notify.on_end import report_end

        return report_end(job)


PLUGIN = Plugin(
    sections={"on_end": "framefleet.plugins.notify.section:OnEndSection"},
    listeners=["framefleet.plugins.notify.plugin:EndListener"],
)
