"""Has a run say how it has ended, where its job wants that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from framefleet.doors import Listener

if TYPE_CHECKING:
    from framefleet.cluster.driver.progress import Summary
    from framefleet.jobs.job.schema import Job


class EndListener(Listener):
    def running(self, job: Job) -> AbstractContextManager[Callable[[Summary], None]]:
        from framefleet.plugins.notify.on_end import report_end

        return report_end(job)
