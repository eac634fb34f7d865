"""In: faults of workers. Out: which workers and machines are no longer used. Pure, no clock.

A worker that has a fault is started again, after a rest that doubles each time. After `retries.faults` in a
row, with no row done in between, its machine is blocked; or, if other workers on that machine are fine, only
this worker is not replaced.

A death may be caused by one of the worker's rows. It counts against the machine once all of these rows are
done, and no longer once one of them is given up for it. Until then more deaths are tolerated, most of all on
a machine that has done rows before.

What a job says below `retries:`: how many errors, deaths and faults it tolerates, and for how long.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.guards.strict_model import Strict
from framefleet.pipeline.outputs.stores.retries import OUTAGE_S

_ROWS_TO_BLAME = 4
# Each row that was struck runs alone before the machine is blamed; about as many as a worker ever holds.
_MOST_SUSPECTS = 32
# Rows given up with none done in between. A proven machine that loads the model each time, and dies of each
# row, may yet be bad: then this many good rows are in failures/, which the next run tries again.
MOST_GIVEN_UP = 24
_STALL_FACTOR = 10
_SHORTEST_STALL_S = 60.0  # a disk that spins up, a link that comes back, a kernel that is tuned
MOST_EXCUSED = 10  # times that a row comes back for its machine's sake: its code may be what ends machines
SUSPECT_DEATHS = 2  # one death is mostly the machine's own; after a second one with the same row, find out


class FaultPolicy(Strict):
    """When a row, a worker or the whole run is given up."""

    attempts: int = Field(
        default=3,
        ge=1,
        description="Give up on a row after this many errors. If earlier rows of its process may be the "
        "cause, it is tried once more, in a new process.",
    )
    worker_deaths: int = Field(
        default=3,
        ge=1,
        description="Give up on a row after it has killed this many workers, the last time while running "
        "alone. Raise it where machines are taken away often.",
    )
    faults: int = Field(
        default=3,
        ge=1,
        description="Stop using a machine or a worker after this many faults in a row, with no row done in "
        "between.",
    )
    stall_s: float = Field(
        default=1800,  # a first forward may be compiled for many minutes
        gt=0,
        description="End a worker whose rows have made no progress for this long; sooner where it is known "
        "how long such rows take.",
    )

    drain_s: float = Field(  # two steps of the largest videos, then clips and a gigabyte a row to upload
        default=120,
        ge=0,
        description="Seconds that workers have to save their rows after Ctrl-C, SIGTERM or SIGHUP.",
    )
    checkpoint_every_s: float = Field(  # at most a gigabyte of a row of ten minutes: 2 MB/s for each GPU
        default=600,
        ge=0,
        description="Seconds between saves of half-done rows in checkpoints/, so that a worker's death loses "
        "no more than this; 0: never.",
    )
    copies: bool = Field(
        default=True,
        description="When no row waits, let idle workers also render rows that are late, or that wait behind "
        "others on their worker; the first to finish counts.",
    )
    store_outage_s: float = Field(
        default=OUTAGE_S,
        ge=0,
        description="Seconds that the output, the table or images and videos may be out of reach before the "
        "job ends.",
    )

    def quarantines(self, num_deaths: int, *, is_alone: bool) -> bool:
        """Return whether a row is given up. is_alone: its worker had no other row when it last died."""
        return is_alone and num_deaths >= self.worker_deaths

    def despairs(self, num_deaths: int, *, num_given_up: int, num_suspects: int, is_proven: bool) -> bool:
        """Return whether workers die for another reason than a row.

        num_deaths: since a row was last done or given up there; num_given_up: since one was last done.
        num_suspects: rows that are rendered alone by now. is_proven: rows were done on that machine before.
        """
        # There one row is given up after `worker_deaths`. Elsewhere none is: those that were struck take
        # turns, alone, and if one of them is done the machine is proven.
        turns = max(_ROWS_TO_BLAME, min(num_suspects, _MOST_SUSPECTS))
        to_blame = _ROWS_TO_BLAME * self.worker_deaths if is_proven else SUSPECT_DEATHS + turns
        return num_deaths > max(self.faults, to_blame) or num_given_up > MOST_GIVEN_UP

    @property
    def longest_writing_s(self) -> float:
        """How long a clip may be on its way from its frames to the store."""
        return self.stall_s + self.store_outage_s

    def longest_still_s(self, seconds_per_row: float | None, *, num_rows: int) -> float:
        """Return how long the rows of a worker may make no progress.

        seconds_per_row: what the worker needed for such rows, if it has done any. num_rows: in a forward.
        """
        if seconds_per_row is None:
            return self.stall_s
        # One row alone, as a plain call, may take as long as all rows of a forward together.
        return min(self.stall_s, max(_SHORTEST_STALL_S, _STALL_FACTOR * num_rows * seconds_per_row))


# died: the process ended, or hung, and its rows may be the cause. machine: no row causes this.
# refused: every further start there would fail in the same way, e.g. without the model's files.
# silent: out of reach, it may still run. gone: the machine itself, and the next may be better.
LossKind = Literal["died", "machine", "refused", "silent", "gone"]

REST_S = 1.0  # after a first fault, then twice as long each time
MAX_REST_S = 60.0
_MOST_BLOCKED = 10  # machines, for few workers in a cluster where some are bad
_MOST_GONE = 3  # times as many: an outage may take all of a fleet's at once
NO_MACHINE = "no machine is left that can render"
# Ray only notices after 65 s, by default, that a machine is cut off: a worker that is started there meanwhile
# would be lost too. If there is no other machine, we do not wait.
SILENT_REST_S = 70.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRows:
    """What a worker that is lost leaves behind in its lane."""

    rows: Collection[str] = ()  # that it had, and that may be the cause
    given_up: Collection[str] = ()  # those of them that are given up for it
    num_suspects: int = 0  # rows that were struck often, and wait to run alone
    busy: Collection[str] = ()  # other processes that have rows


@dataclass(slots=True, eq=False)
class _Fault:
    """rows: those that may be the cause, until they are done. is_theirs: one of them was given up for it."""

    rows: set[str]
    is_theirs: bool = False


@dataclass(slots=True)
class _Streak:
    """Faults with no row done in between. since: how many rows all machines had done when it began."""

    faults: list[_Fault] = field(default_factory=list)
    given_up: int = 0  # rows, for deaths
    since: int = 0

    @property
    def num_faults(self) -> int:
        return sum(not fault.is_theirs for fault in self.faults)

    def add(self, fault: _Fault, *, num_done: int) -> None:
        if fault.is_theirs:
            self.faults = []
            self.given_up += 1
            return
        if not self.num_faults:
            self.since = num_done
        self.faults.append(fault)

    def is_over(self, policy: FaultPolicy, *, num_suspects: int, is_proven: bool) -> bool:
        """Return whether a place is no longer used after these faults. is_proven: a row was done there."""
        num_its_own = sum(not (fault.is_theirs or fault.rows) for fault in self.faults)
        # The rows of the last death can be done elsewhere only after it.
        num_in_doubt = 1 if num_its_own and self.faults[-1].rows else 0
        return num_its_own + num_in_doubt >= policy.faults or policy.despairs(
            self.num_faults, num_given_up=self.given_up, num_suspects=num_suspects, is_proven=is_proven
        )


@dataclass(slots=True)
class _Place:
    """A machine, or one worker of the fleet. name: for people."""

    name: str
    streak: _Streak = field(default_factory=_Streak)
    rests_until: float = 0.0
    failed_at: str = ""  # a worker's machine at its last fault
    last_fault: int = 0  # the number of the last one that counts
    unused: str | None = None  # why it is no longer used
    error: FramefleetError | None = None  # ours, if that is the reason


class Hosts:
    """The machines, by id, and the workers of one lane, by the name that they share with successors."""

    def __init__(self, policy: FaultPolicy, proven: set[str] | None = None) -> None:
        """proven: machines and workers that have rendered a row; grows, and lanes of a model may share it."""
        self._policy, self._proven = policy, set() if proven is None else proven
        self._hosts: dict[str, _Place] = {}
        self._workers: dict[str, _Place] = {}
        self._at: dict[str, str] = {}  # the machine of each worker that lives
        self._placed: dict[str, int] = {}  # how many faults there had been when it came there
        self._in_doubt: dict[str, list[_Fault]] = {}  # by row that may be the cause
        self._num_faults = self._num_done = self._num_blocked = self._num_given_up = self._num_gone = 0
        self._busy: set[str] = set()  # processes that have had rows ever since the first row was given up

    def placed(self, worker: str, host: str, name: str) -> None:
        """A process of the worker is on this machine. name: the machine's, for people."""
        self._hosts.setdefault(host, _Place(name))
        self._at[worker] = host
        self._placed[worker] = self._num_faults
        if (own := self._worker(worker)).failed_at not in ("", host):
            own.streak = _Streak()  # those were faults of another machine, or of its network

    def done(self, worker: str, row_id: str = "") -> None:
        """The worker has rendered a row: it is sound, and so is its machine. The row did not kill others."""
        self._num_done += 1
        self._num_blocked = self._num_given_up = self._num_gone = 0
        self.cleared(worker)
        self.acquitted(row_id)
        self._proven |= {worker, self._at.get(worker, worker)}
        for place in self._places_of(worker):
            place.rests_until = 0.0

    def acquitted(self, row_id: str) -> None:
        """The row has ended, and did not kill its worker: earlier deaths were not its doing."""
        for fault in self._in_doubt.pop(row_id, ()):
            fault.rows.discard(row_id)

    def cleared(self, worker: str) -> None:
        for place in self._places_of(worker):
            place.streak = _Streak()

    def left(self, worker: str) -> None:
        self._at.pop(worker, None)

    def fault(
        self,
        worker: str,
        reason: str,
        *,
        kind: LossKind,
        now: float,
        loss: LostRows = LostRows(),
        error: FramefleetError | None = None,
    ) -> float | None:
        """The worker's process is gone; return when another may be started, or None if none should be."""
        host = self._at.pop(worker, "")
        if kind == "gone":
            self._num_gone += 1
            return now + REST_S
        own, place = self._worker(worker), self._hosts.get(host)
        fault = _Fault({*loss.rows} if kind == "died" else set(), is_theirs=bool(loss.given_up))
        self._busy = self._busy & {*loss.busy} if self._num_given_up else {*loss.busy}
        self._num_given_up += len(loss.given_up)
        own.failed_at = host
        self._num_faults += 1
        own.streak.add(fault, num_done=self._num_done)
        if place:
            # One event may strike all processes of a machine, e.g. a network that fails for a moment.
            is_same = place.streak.faults and self._placed.get(worker, 0) < place.last_fault
            if kind == "died" or not is_same:
                place.last_fault = self._num_faults
                place.streak.add(fault, num_done=self._num_done)
        for row_id in fault.rows:
            self._in_doubt.setdefault(row_id, []).append(fault)
        for row_id in loss.given_up:
            for earlier in self._in_doubt.pop(row_id, ()):
                earlier.is_theirs = True
        if guilty := self._guilty(own, place, host, kind, num_suspects=loss.num_suspects):
            guilty.unused, guilty.error = reason, error
            self._num_blocked += 1
            if guilty is own:
                return None
            own.streak = _Streak()  # it may do better elsewhere
        are_in_turn = kind == "died" and loss.num_suspects > 0  # its rows, one of which may be the cause
        rest = REST_S if are_in_turn else min(MAX_REST_S, REST_S * 2.0 ** max(0, own.streak.num_faults - 1))
        if place:
            place.rests_until = now + (SILENT_REST_S if kind == "silent" else rest)
        return now + rest

    def to_avoid(self, now: float) -> tuple[list[str], dict[str, float]]:
        """Return the machines that are blocked, and those that rest, each with the time when that ends."""
        blocked = [host for host, place in self._hosts.items() if place.unused]
        rests = {host: place.rests_until for host, place in self._hosts.items() if not place.unused}
        return blocked, {host: until for host, until in rests.items() if until > now}

    def rest(self, host: str, until: float) -> None:
        """The machine is out of reach, as another lane has seen."""
        if place := self._hosts.get(host):
            place.rests_until = max(place.rests_until, until)

    @property
    def num_gone(self) -> int:
        """How many workers lost their machine since the last row was done."""
        return self._num_gone

    def host_of(self, worker: str) -> str | None:
        return self._at.get(worker)

    def is_barred(self, worker: str) -> bool:
        """Return whether the worker is no longer used on any machine."""
        return worker in self._workers and self._workers[worker].unused is not None

    @property
    def are_doubtful(self) -> bool:
        """Whether two workers died, with no row done since: rows of other lanes may as well go first."""
        streaks = [place.streak for place in self._hosts.values()]
        return any(streak.num_faults > 1 and streak.since == self._num_done for streak in streaks)

    def use_again(self, alive: Collection[str]) -> None:
        """Use the workers again that were barred on machines which are not among those alive any more."""
        for own in self._workers.values():
            if own.unused and own.failed_at and own.failed_at not in alive:
                own.unused, own.error, own.streak = None, None, _Streak()

    def is_blocked(self, host: str) -> bool:
        return host in self._hosts and self._hosts[host].unused is not None

    def despair(self, num_workers: int) -> str:
        """Return why no more workers should be started; "" as long as one should.

        Since the last row was done, at least one machine per worker failed, three were taken away, or many
        rows were given up. In a cluster that always adds machines, a row that ends them would go on for ever.
        """
        least = max(num_workers, _MOST_BLOCKED)
        if self.num_killers:
            return f"rows that killed their workers, with none done in between: {self.num_killers}"
        if self._num_gone >= _MOST_GONE * least:
            return f"workers whose machines went away, with no row done in between: {self._num_gone}"
        return NO_MACHINE if self._num_blocked >= least else ""

    @property
    def num_killers(self) -> int:
        """How many rows in a row killed their workers, once these are too many.

        0 as long as a process has had rows all the while: they may be long, and sound.
        """
        return self._num_given_up if self._num_given_up > MOST_GIVEN_UP and not self._busy else 0

    @property
    def unused(self) -> tuple[str, ...]:
        """The machines and workers that are no longer used, each with its reason, in words."""
        places = [*self._hosts.values(), *self._workers.values()]
        return tuple(f"{place.name} is no longer used: {place.unused}" for place in places if place.unused)

    @property
    def error(self) -> FramefleetError | None:
        """The error of ours that made all of these unused, if it is the same for all; it names them."""
        unused = [place for place in (*self._hosts.values(), *self._workers.values()) if place.unused]
        errors = [place.error for place in unused]
        if not errors or errors[0] is None or any(type(error) is not type(errors[0]) for error in errors):
            return None
        names = ", ".join(place.name for place in unused)
        return type(errors[0])(f"{errors[0].problem} (on {names})", errors[0].fix)

    def name_of(self, worker: str) -> str | None:
        return host.name if (host := self._host_of(worker)) else None

    def _guilty(
        self, own: _Place, place: _Place | None, host: str, kind: LossKind, *, num_suspects: int
    ) -> _Place | None:
        """Return what should no longer be used: the machine, or the worker if others there are fine."""
        is_proven = (host if place else own.name) in self._proven
        is_own, is_its = (
            suspect is not None
            and suspect.streak.is_over(self._policy, num_suspects=num_suspects, is_proven=is_proven)
            for suspect in (own, place)
        )
        if kind == "refused" and not place:
            return own
        others = (other for other, at in self._at.items() if at == host)
        has_sound = any(not self._worker(other).streak.num_faults for other in others)  # of late
        if place and (kind == "refused" or ((is_own or is_its) and not has_sound)):
            return place
        return own if is_own else None

    def _worker(self, worker: str) -> _Place:
        return self._workers.setdefault(worker, _Place(worker))

    def _places_of(self, worker: str) -> list[_Place]:
        host = self._host_of(worker)
        return [self._worker(worker), *([host] if host else [])]

    def _host_of(self, worker: str) -> _Place | None:
        return self._hosts.get(self._at.get(worker, ""))
