"""Who is told how far a job is: a terminal, a log, a callback, or nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from framefleet.cluster.progress import Progress
from framefleet.jobs.train.progress import TrainProgress


class Watch(Protocol):
    """Told from the driver's own thread; may take its time, but not raise."""

    def say(self, text: str) -> None:
        """One step of the job begins, or is done."""

    def checked(self, num_rows: int) -> None:
        """So many rows of the table have been read and checked."""

    def progress(self, progress: Progress) -> None:
        """Rows are being rendered."""


class TrainWatch(Protocol):
    """The same, of a training."""

    def say(self, text: str) -> None:
        """One step of the job begins, or is done."""

    def checked(self, num_rows: int) -> None:
        """So many rows of the table have been read and checked."""

    def prepared(self, num_rows: int, total: int) -> None:
        """So many rows have their latents and embeddings."""

    def trained(self, progress: TrainProgress) -> None:
        """A step was done."""


class Callback:
    """Hands progress to a function and is silent about the rest."""

    def __init__(self, function: Callable[[Progress], None] | None = None) -> None:
        self._function = function

    def say(self, text: str) -> None:
        """Say nothing."""

    def checked(self, num_rows: int) -> None:
        """Say nothing."""

    def progress(self, progress: Progress) -> None:
        if self._function is not None:
            self._function(progress)


class TrainCallback:
    """Hands the progress of a training to a function and is silent about the rest."""

    def __init__(self, function: Callable[[TrainProgress], None] | None = None) -> None:
        self._function = function

    def say(self, text: str) -> None:
        """Say nothing."""

    def checked(self, num_rows: int) -> None:
        """Say nothing."""

    def prepared(self, num_rows: int, total: int) -> None:
        """Say nothing."""

    def trained(self, progress: TrainProgress) -> None:
        if self._function is not None:
            self._function(progress)
