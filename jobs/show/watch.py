"""Progress of a job as plain values, as one line of text for each, and where it is reported."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from framefleet.cluster.driver.progress import AuditFigures, Progress
from framefleet.pipeline.errors import command, count_text, escaped
from framefleet.pipeline.metrics import ENGINE_MONEY, SERVER_DOWN_SECONDS, SERVER_IDLE_SECONDS, SERVER_ROWS

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.gone_clips import Gone

Standing: TypeAlias = "Awaited | Checked | Progress | Activity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """Something that the job waits for, and since when, by the monotonic clock."""

    what: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A table that is being read: the number of rows checked so far."""

    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsProgress:
    """Progress of work on clips of an output. Rates are of this run; None if they are not known."""

    doing: str  # what happens to them, e.g. "exported"
    done: int  # of `total`, including earlier runs
    total: int
    clips_per_s: float | None = None
    bytes_per_s: float | None = None
    eta_s: float | None = None
    noun: str = "clip"  # what one of them is

    def parts(self) -> list[str]:
        """Return the parts of a line about it."""
        parts = [f"{self.done:,}/{count_text(self.total, self.noun)} {self.doing}"]
        if self.bytes_per_s is not None:
            parts.append(f"{self.bytes_per_s / 1e6:.1f} MB/s")
        elif self.clips_per_s is not None:
            parts.append(f"{self.clips_per_s:.1f} {self.noun}s/s")
        return parts if self.eta_s is None else [*parts, f"{duration(self.eta_s)} left"]


class Activity(Protocol):
    """Progress of other work that takes long."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...

    def parts(self) -> Sequence[str]:
        """Return the parts of a line about it."""


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
    """Passes progress to a function, and ignores everything else."""

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
    """Counts clips that are read one by one. doing, noun: as in `ClipsProgress`. before: done earlier."""

    def __init__(self, doing: str, *, total: int, before: int = 0, watch: Watch, noun: str = "clip") -> None:
        self._watch, self._first = watch, ClipsProgress(doing=doing, done=before, total=total, noun=noun)
        self._done, self._num_bytes, self._begun = before, 0, time.monotonic()
        self.add(0)

    def add(self, num_clips: int, num_bytes: int = 0) -> None:
        """Count clips as done. num_bytes: their size, if known."""
        self._done, self._num_bytes = self._done + num_clips, self._num_bytes + num_bytes
        elapsed_s = time.monotonic() - self._begun
        rate = (self._done - self._first.done) / elapsed_s if elapsed_s else 0.0
        self._watch.show(
            replace(
                self._first,
                done=self._done,
                clips_per_s=rate or None,
                bytes_per_s=self._num_bytes / elapsed_s if rate and self._num_bytes else None,
                eta_s=(self._first.total - self._done) / rate if rate else None,
            )
        )


VAGUE = 0.3  # of the rows: a bound above this says little, and reads as if these were wrong


def headline(standing: Standing) -> str:
    """Return all counts in one line."""
    match standing:
        case Awaited():
            return f"{standing.what} ({duration(time.monotonic() - standing.since)})"
        case Checked():
            return f"{count_text(standing.num_rows, 'row')} checked"
        case Progress():
            return ", ".join(_of_rows(standing))
        case _:
            return ", ".join(standing.parts())


def duration(seconds: float) -> str:
    """Return 75 seconds as 1:15, and 3,700 as 1:01:40."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _of_rows(progress: Progress) -> list[str]:
    parts = [f"{progress.done:,}/{count_text(progress.total, 'row')}"]
    if progress.rows_per_s is not None:
        parts.append(f"{progress.rows_per_s:.2f} rows/s")
    if progress.eta_s is not None:
        parts.append(f"{duration(progress.eta_s)} left")
    if progress.mean_batch is not None:
        parts.append(f"mean batch {progress.mean_batch:.1f}")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.paused_since:
        parts.append(f"paused since {progress.paused_since}")
    elif not progress.workers:
        parts.append(f"{progress.waiting_for or 'workers are starting'} ({duration(progress.elapsed_s)})")
    elif not progress.done and progress.in_flight:
        parts.append(f"first clips under way ({duration(progress.elapsed_s)})")
    return parts


def server_lines(figures: Mapping[str, float], elapsed_s: float) -> list[str]:
    """Return a line for each server of an engine, and one for the cost."""
    lines = []
    for name, num in SERVER_ROWS.by_label(figures).items():
        idle_s, down_s = SERVER_IDLE_SECONDS.of(figures, name), SERVER_DOWN_SECONDS.of(figures, name)
        line = f"server {name}: {count_text(num, 'row')}"
        line += f", idle {idle_s / elapsed_s:.0%} of the time" if elapsed_s else ""
        lines.append(line + (f", no usable answer for {down_s:.0f} s" if down_s >= 1 else ""))
    paid = ENGINE_MONEY.total(figures)
    return [*lines, f"paid in this run: {paid:,.2f}"] if paid else lines


def audit_line(audits: AuditFigures, num_rows: int) -> str:
    """Return how many rows were compared, and what that says about the others.

    num_rows: rows with a record.
    """
    if not audits.num_equal and not audits.num_unaudited:
        needed = "no audits were needed: each row was rendered by a plain call"
        return needed if num_rows else "no rows to audit"
    if not audits.num_equal:
        return f"rows compared: none of {num_rows:,}"
    if audits.num_equal == num_rows and not audits.num_unaudited:
        return f"every row compared ({num_rows:,}): equal"
    equal = "equal" if audits.num_equal == 1 else "all equal"
    line = f"{audits.num_equal:,} of {count_text(num_rows, 'row')} compared: {equal}"
    if audits.most_wrong > VAGUE * num_rows:
        line += ", too few for an estimate (to compare more, set `audit: {at_most: 0.01}`)"
    else:
        line += f"; with 95 % confidence, {bound_text(audits.most_wrong, num_rows)}"
    if never := [kind for kind, is_compared in audits.kinds.items() if not is_compared]:
        kinds = f"{len(never):,} of the {len(audits.kinds):,} kinds (recipe, models, sizes)"
        example = escaped(never[0][:100])  # of a driver's file, which may be anybody's
        line += f"; no row of {kinds} was compared, e.g. {example}"
    return line


def bound_text(most_wrong: int, num_rows: int) -> str:
    """Return how many rows differ at most."""
    share = most_wrong / num_rows if num_rows else 0.0
    return f"at most {most_wrong:,} of all rows ({share_text(share)}) may differ"


def share_text(share: float) -> str:
    """Return a share in per cent, with two digits, rounded up so that a bound stays a bound."""
    if share <= 0:
        return "0 %"
    digits = max(0, 1 - math.floor(math.log10(100 * share) + 1e-9))
    step = 10.0**-digits
    return f"{math.ceil(100 * share / step - 1e-9) * step:.{digits}f} %"


def gone_line(gone: Gone) -> str:
    """Return a line about clips of an output that are gone."""
    checked = "" if gone.num_seen == gone.num_records else f", of {gone.num_seen:,} that were checked"
    return (
        f"damaged: {count_text(gone.num_gone, 'clip')} with a record, gone or of another size{checked}"
        f", e.g. {gone.example}; `{command('repair', 'JOB.YAML')}` renders such clips again"
    )
