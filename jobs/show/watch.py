"""Progress of a job as plain values, and where it is reported: a terminal, a log, a callback, or nowhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Protocol, TypeAlias

from framefleet.cluster.driver.progress import Progress

Standing: TypeAlias = "Awaited | Checked | ClipsProgress | Progress | Activity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """Something that takes its time, and since when by the monotonic clock."""

    what: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A table under way: the number of rows that are read and checked."""

    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsProgress:
    """Clips of an output under way. Rates are of this run; None where they are not known."""

    doing: str  # what becomes of them, e.g. "exported"
    done: int  # of `total`, in earlier runs too
    total: int
    clips_per_s: float | None = None
    bytes_per_s: float | None = None
    eta_s: float | None = None


class Activity(Protocol):
    """Other work that takes long, as far as it is."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...

    def parts(self) -> Sequence[str]:
        """Return what a line about it says."""


class Watch(Protocol):
    """Called from the driver's own thread; may take its time, but not raise."""

    def say(self, text: str) -> None:
        """A step of the job begins or has ended."""

    def show(self, standing: Standing) -> None:
        """Progress of the job."""


def wait_for(watch: Watch, what: str) -> None:
    """Report what the job waits for from now on."""
    watch.show(Awaited(what=what, since=time.monotonic()))


class Callback:
    """Hands the progress of what takes long to a function and is silent about the rest."""

    def __init__(
        self,
        function: Callable[[Any], None] | None = None,
        kinds: type | UnionType = Progress | ClipsProgress,
    ) -> None:
        self._function, self._kinds = function, kinds

    def say(self, text: str) -> None:
        """Say nothing."""

    def show(self, standing: Standing) -> None:
        if self._function is not None and isinstance(standing, self._kinds):
            self._function(standing)


class ClipsPace:
    """Counts clips that are read one after the other. doing: as in `ClipsProgress`. before: done earlier."""

    def __init__(self, doing: str, *, total: int, before: int = 0, watch: Watch) -> None:
        self._doing, self._total, self._before, self._watch = doing, total, before, watch
        self._done, self._num_bytes, self._begun = before, 0, time.monotonic()
        self.add(0)

    def add(self, num_clips: int, num_bytes: int = 0) -> None:
        """Count clips as done. num_bytes: their size, where it is known."""
        self._done, self._num_bytes = self._done + num_clips, self._num_bytes + num_bytes
        elapsed_s = time.monotonic() - self._begun
        rate = (self._done - self._before) / elapsed_s if elapsed_s else 0.0
        self._watch.show(
            ClipsProgress(
                doing=self._doing,
                done=self._done,
                total=self._total,
                clips_per_s=rate or None,
                bytes_per_s=self._num_bytes / elapsed_s if rate and self._num_bytes else None,
                eta_s=(self._total - self._done) / rate if rate else None,
            )
        )
