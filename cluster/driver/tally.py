"""From what happens to how far the job is: counts, rate, time left. Takes `now` from its caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from framefleet.cluster.driver.budget import Spent
from framefleet.cluster.driver.pace import TimeLeft
from framefleet.cluster.driver.progress import Progress, Summary, Unscored, WorkerState
from framefleet.pipeline.render.audit.verdict import Audited


@dataclass(slots=True)
class _Seat:
    node: str
    in_hand: int = 0
    done: int = 0
    remembered: int = 0
    gone: str = ""  # how, if it is: lost or drained
    idle: Mapping[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0


class Tally:
    """Counts one run. total: rows that it has to render. before: those that had a record already."""

    def __init__(self, total: int, *, now: float, before: int = 0) -> None:
        self._total, self._before = total, before
        self._pace = TimeLeft()
        self._started_at = now
        self._first_lease_at: float | None = None
        self._done = self._failed = 0
        self._rendered = self._audited = 0  # both count rows each time
        self._batch_sizes = 0.0
        self._bytes = 0
        self._again = self._adopted = 0
        self._unscored: dict[str, Unscored] = {}
        self._apart: list[str] = []
        self._unrepeatable: list[str] = []
        self._seats: dict[str, _Seat] = {}
        self._last_failure: str | None = None
        self._waiting_for: str | None = None
        self._unused: tuple[str, ...] = ()
        self._paused_since = ""
        self._paused_at = self._paused_s = 0.0  # when the last pause began; all that are over, together

    @property
    def is_paused(self) -> bool:
        return bool(self._paused_since)

    @property
    def num_left(self) -> int:
        """How many rows have not ended."""
        return self._total - self._done - self._failed

    def pause(self, since: str, *, now: float) -> None:
        """Nothing is rendered from now on, and this time does not count. since: for people."""
        self._paused_since, self._paused_at = since, now

    def resume(self, *, now: float) -> None:
        self._paused_s += now - self._paused_at
        self._paused_since = ""

    def _worked_until(self, now: float) -> float:
        """Return a clock that stands while the job is paused."""
        return (self._paused_at if self.is_paused else now) - self._paused_s

    def starting(self, doing: str) -> None:
        """A worker is on its way, and this takes its time."""
        self._waiting_for = doing

    def joined(self, worker: str, node: str) -> None:
        self._seats[worker] = _Seat(node)

    def leased(self, worker: str, rows: int, *, now: float) -> None:
        if rows and self._first_lease_at is None:
            self._first_lease_at = self._worked_until(now)
        self._seats[worker].in_hand += rows

    def done(self, worker: str, batch_size: float, num_bytes: int = 0) -> None:
        self._done += 1
        self._bytes += num_bytes
        self._rendered += 1
        self._batch_sizes += batch_size
        self._seats[worker].done += 1
        self.returned(worker)

    def unscored(self, row_id: str, errors: Mapping[str, str]) -> None:
        """These scores of a row failed, and are null in its record."""
        for name, message in errors.items():
            known = self._unscored.get(name)
            self._unscored[name] = Unscored(
                num=known.num + 1 if known else 1,
                example=known.example if known else f"row {row_id}: {message}",
            )

    def added(self, num_new: int, *, num_done: int) -> None:
        """Rows were added to the table. num_done: those that have a record."""
        self._total += num_new
        self._before += num_done

    def adopted(self, num_bytes: int = 0) -> None:
        """A clip of an earlier run was committed."""
        self._done += 1
        self._bytes += num_bytes
        self._adopted += 1

    def worked(self, worker: str, *, idle: Mapping[str, float], elapsed_s: float) -> None:
        """Note how the worker spent its time so far."""
        seat = self._seats[worker]
        seat.idle, seat.elapsed_s = idle, elapsed_s

    def returned(self, worker: str) -> None:
        """A row left the worker's hands."""
        self._seats[worker].in_hand -= 1

    def withdrawn(self, rows: int, *, num_bytes: int, num_before: int = 0) -> None:
        """Rows that were done are to be rendered again, over their clips of this many bytes.

        num_before: of these, those that were done before this run.
        """
        self._done -= rows - num_before
        self._before -= num_before
        self._total += num_before
        self._bytes -= num_bytes
        self._again += rows

    def audited(self, audited: Audited) -> None:
        self._audited += 1
        named = {"differs": self._apart, "unrepeatable": self._unrepeatable}.get(audited.verdict, [])
        if audited.kind not in named:
            named.append(audited.kind)

    def remembered(self, worker: str, sizes: int) -> None:
        """How many batch sizes of this worker, since its start, other processes had found."""
        self._seats[worker].remembered = sizes

    def failed(self, message: str) -> None:
        self._failed += 1
        self._last_failure = message

    def lost(self, worker: str) -> None:
        if worker in self._seats:  # it may never have joined
            self._seats[worker].gone = "lost"
            self._seats[worker].in_hand = 0

    def unused(self, places: tuple[str, ...]) -> None:
        """These workers and machines are used no longer, as of now; each with its reason."""
        self._unused = places

    def drained(self, worker: str) -> None:
        self._seats[worker].gone = "drained"

    def progress(self, now: float) -> Progress:
        now = self._worked_until(now)
        rate = self._rate(now)
        here = sum(not seat.gone for seat in self._seats.values())
        self._pace.finished(self._rendered, now=now, workers=here)
        return Progress(
            total=self._total,
            before=self._before,
            done=self._done,
            failed=self._failed,
            in_flight=sum(seat.in_hand for seat in self._seats.values()),
            elapsed_s=now - self._started_at,
            rows_per_s=rate,
            eta_s=self._pace.eta_s(self.num_left, now=now, batch=self._mean_batch or 1.0),
            mean_batch=self._mean_batch,
            workers=tuple(_state(name, seat) for name, seat in self._seats.items()),
            last_failure=self._last_failure,
            waiting_for=self._waiting_for,
            unused=self._unused,
            worker_s=self._worker_s,
            paused_since=self._paused_since,
        )

    def spent(self, now: float) -> Spent:
        """Return what this run has spent."""
        elapsed_s = self._worked_until(now) - self._started_at
        return Spent(elapsed_s=elapsed_s, worker_s=self._worker_s, num_bytes=self._bytes)

    def summary(self, now: float) -> Summary:
        return Summary(
            done=self._done,
            failed=self._failed,
            elapsed_s=self._worked_until(now) - self._started_at,
            mean_batch=self._mean_batch,
            num_audited=self._audited,
            num_again=self._again,
            num_adopted=self._adopted,
            apart=tuple(self._apart),
            unrepeatable=tuple(self._unrepeatable),
            num_remembered=sum(seat.remembered for seat in self._seats.values()),
            idle=self._idle(),
            unused=self._unused,
            unscored=dict(self._unscored),
        )

    def _idle(self) -> Mapping[str, float]:
        """Return the parts of all workers' time that were idle, by cause, the largest first."""
        seats = self._seats.values()
        elapsed_s = sum(seat.elapsed_s for seat in seats)
        causes = {cause for seat in seats for cause in seat.idle}
        parts = {cause: sum(seat.idle.get(cause, 0.0) for seat in seats) / elapsed_s for cause in causes}
        return dict(sorted(parts.items(), key=lambda part: -part[1]))

    @property
    def _worker_s(self) -> float:
        return sum(seat.elapsed_s for seat in self._seats.values())

    @property
    def _mean_batch(self) -> float | None:
        return self._batch_sizes / self._rendered if self._rendered else None

    def _rate(self, now: float) -> float | None:
        if not self._rendered or self._first_lease_at is None or now <= self._first_lease_at:
            return None
        return self._rendered / (now - self._first_lease_at)


def _state(name: str, seat: _Seat) -> WorkerState:
    state = seat.gone or ("rendering" if seat.in_hand else "idle")
    return WorkerState(name=name, state=state, node=seat.node, rows_in_hand=seat.in_hand, rows_done=seat.done)
