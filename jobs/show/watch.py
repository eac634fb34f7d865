"""Who is told how far a job is: a terminal, a log, a callback, or nobody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from framefleet.cluster.driver.progress import Progress
from framefleet.jobs.show.standing import Awaited, ClipsProgress, Standing, TrainProgress


class Watch(Protocol):
    """Told from the driver's own thread; may take its time, but not raise."""

    def say(self, text: str) -> None:
        """One step of the job begins, or is done."""

    def show(self, standing: Standing) -> None:
        """The job is so far."""


def wait_for(watch: Watch, what: str) -> None:
    """Tell what is waited for from now on, until something else is told."""
    watch.show(Awaited(what=what, since=time.monotonic()))


class Callback:
    """Hands the progress of what takes long to a function and is silent about the rest."""

    def __init__(self, function: Callable[[Any], None] | None = None) -> None:
        self._function = function

    def say(self, text: str) -> None:
        """Say nothing."""

    def show(self, standing: Standing) -> None:
        kinds = Progress | TrainProgress | ClipsProgress
        if self._function is not None and isinstance(standing, kinds):
            self._function(standing)
