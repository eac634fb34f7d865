"""Register the sections `on_end` and `heartbeat` of a job."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from framefleet.api import Listener, Plugin

if TYPE_CHECKING:
    from framefleet.api.commands import Watch
    from framefleet.api.jobs import Job, Summary


class EndListener(Listener):
    def check(self, job: Job) -> None:
        from framefleet.plugins.notify.on_end import checked_end

        checked_end(job)

    def running(self, job: Job) -> AbstractContextManager[Callable[[Summary], None]]:
        from framefleet.plugins.notify.on_end import report_end

        return report_end(job)


class HeartbeatListener(Listener):
    def check(self, job: Job) -> None:
        from framefleet.plugins.notify.heartbeat import checked_urls

        checked_urls(job)

    def running(self, job: Job) -> AbstractContextManager[Callable[[Summary], None]]:
        from framefleet.plugins.notify.heartbeat import beating

        return beating(job)

    def following(self, job: Job, watch: Watch) -> AbstractContextManager[None]:
        from framefleet.plugins.notify.heartbeat import begin

        begin()
        return nullcontext()


PLUGIN = Plugin(
    sections={
        "on_end": "framefleet.plugins.notify.section:OnEndSection",
        "heartbeat": "framefleet.plugins.notify.section:HeartbeatSection",
    },
    listeners=[
        "framefleet.plugins.notify.plugin:HeartbeatListener",  # first, to report errors of the other
        "framefleet.plugins.notify.plugin:EndListener",
    ],
)
