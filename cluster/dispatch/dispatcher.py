"""In: rows, and reports of workers. Out: leases, and rows to give up on.

Knows no Ray, no clock and no disk: `now` is any steadily growing number of seconds. Remembers the rows that
wait or are leased, never those that ended, so it stays small however long the table is.

When a worker dies
- Each of its rows that may be the cause gets a strike. All its rows go back in line, ahead of all fresh rows,
  first for workers on other machines, then for others on the same one.
- A strike counts as a death of the row if that machine has finished a row before. Until then, the machine
  may be the cause.
- A row with two strikes is a suspect: it is leased alone, to an empty worker that gets nothing else, on a
  machine that has finished a row, if there is one.
- A row is quarantined once it has `worker_deaths` deaths and was alone on its worker at the last one. So a
  row that only ran together with a killer never is: the killer kills alone too, and the others finish.
- A row is excused if it cannot be the cause, e.g. as its machine is gone, or if a checkpoint of it was stored
  there. But at most ten times: a row that makes machines end would go on for ever.

When a row fails as on a broken machine, e.g. because of a full disk
- The machine may be the cause, so the error does not count. The row waits until no others do.
- If it fails like this again on a machine that has finished other rows since, its errors count as usual. If
  only such rows are left, they also count on a machine that has finished any row.

When a row runs out of memory on its own
- It goes to a worker with the most memory. If it fails there, it gets a last try in a new process with as
  much.
- If that fails too, rows of its shape that fail with as much memory are given up at once.

So a row in doubt climbs one ladder: with others, then elsewhere, then alone, where it can be judged (`Need`):
in a new process, if earlier rows of its process may be the cause. Only the last step's verdict is final.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import partial

from framefleet.cluster.dispatch.faults import MOST_EXCUSED, FaultPolicy
from framefleet.cluster.dispatch.lease import (
    MAX_PACES,
    Entry,
    GivenUp,
    Lease,
    LeasedRow,
    LeaseSize,
    Need,
    Paces,
    Row,
    Seat,
    Whereabouts,
)
from framefleet.cluster.dispatch.order import SLACK_BYTES, Copies, Ranked, TableOrder, Waiting
from framefleet.pipeline.errors import count_text

__all__ = ["Dispatcher", "GivenUp", "Lease", "LeaseSize", "LeasedRow", "Row"]


class Dispatcher:
    """Decides which worker renders which row next."""

    def __init__(
        self,
        faults: FaultPolicy | None = None,
        *,
        window: int = 4096,  # rows that may wait at once; those in the workers' hands come on top
        leases_per_worker: int = 2,
        size: LeaseSize | None = None,
        order: Ranked | None = None,  # of fresh rows
        paces: Paces | None = None,
        proven: set[str] | None = None,  # machines that have done a row; grows, may be shared by dispatchers
    ) -> None:
        self._window = window
        self._faults = faults or FaultPolicy()
        self._leases_per_worker = leases_per_worker
        self._size = size or LeaseSize()
        self._held: set[str] = set()  # row_ids that wait or are leased
        self._waiting = Waiting(TableOrder() if order is None else order)
        self._too_large: dict[str, int] = {}  # by shape: the memory in which a row failed for good
        self._num_doubted = 0  # rows that failed so, and have not ended
        self._done_at = Counter[str]()  # rows, by machine
        self._seats: dict[str, Seat] = {}
        self._live: dict[str, Whereabouts] = {}  # where workers with a seat are
        self._proven = set() if proven is None else proven
        self._emptying: set[str] = set()  # workers that get nothing more until they can take a suspect
        self._paces = paces or Paces()
        self._copies = Copies(self._seats, self._paces)
        self._dropped: dict[str, list[str]] = {}  # by worker: rows that it has and that ended elsewhere
        self._num_expected = 0
        self._closed = False

    @property
    def room(self) -> int:
        """How many more rows may wait."""
        return 0 if self._closed else max(0, self._window - self.num_waiting)

    @property
    def finished(self) -> bool:
        return self._closed and not self._held

    @property
    def num_workers(self) -> int:
        return len(self._live)

    @property
    def num_suspects(self) -> int:
        return len(self._waiting.alone["proven"])

    @property
    def mean_seconds(self) -> float | None:
        """The seconds that a worker needs for a row, of any shape; None before one is done."""
        return self._paces.mean_seconds

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_leased(self) -> int:
        return len(self._held) - self.num_waiting

    def add(self, row: Row) -> None:
        """Take the next row of the table; call only while there is `room`."""
        assert not self._closed, f"row {row.row_id} was added after close()"
        assert row.row_id not in self._held, f"row {row.row_id} was added twice"
        self._held.add(row.row_id)
        self._waiting.fresh.add(row)

    def close(self) -> None:
        """The table is exhausted."""
        self._closed = True

    def reopen(self) -> None:
        """More rows will be added, as rows that were done must be rendered again."""
        self._closed = False

    def expect(self, num_workers: int) -> None:
        """Set the number of workers, with those on their way: the last rows are shared out among all."""
        self._num_expected = num_workers

    def join(self, worker: str, *, at: Whereabouts = (), room: int = 0, is_new: bool = True) -> None:
        """The worker is ready. Give each process a new name: reports are distinguished by worker and row.

        at: where it is, the widest place first; workers in the same place may fail for the same reason. room:
        bytes of memory that a row has there. is_new: its process has had no row.
        """
        assert worker not in self._seats, f"worker {worker} joined twice"
        self._seats[worker] = Seat(room=room, num_leases=0 if is_new else 1)
        self._live[worker] = (*at, worker)

    def lease(self, worker: str, now: float) -> Lease | None:
        """Return the next rows for this worker; None if there are none right now, or it was given up."""
        seat = self._seats.get(worker)
        if seat is None or seat.alone or seat.num_open >= self._leases_per_worker:
            return None
        live = self._live
        for need, line in self._waiting.alone.items():  # suspects come last
            judges = self._judges(need) if line else {}
            if worker in judges and line.shape_for(worker, judges) is not None:
                if not seat.rows:
                    self._emptying.discard(worker)
                    return self._grant(worker, line.take(worker, judges, limit=1), now, alone=True)
                if worker in self._emptying or len(self._emptying) < len(line):
                    self._emptying.add(worker)
                    return None
        self._emptying.discard(worker)
        proves = self.num_suspects > 0 and not judges  # once it has done a row, its machine can judge them
        if proves and seat.rows:
            return None
        num_leases = 1 if proves else self._leases_per_worker
        patience = len(live) * num_leases  # about one turn of the whole fleet
        size = (lambda _: 1) if proves else partial(self._lease_rows, len(seat.rows))
        entries = self._waiting.take(worker, live, rendering=seat.shape, patience=patience, size=size)
        if proves:
            return self._grant(worker, entries, now, alone=True) if entries else None
        if not entries and not seat.rows:
            entries = self._waiting.doubtful.take(worker, live, limit=1)
        if not entries and self._faults.copies and self._closed and not seat.rows:
            entries = self._copies.take(worker, now)
        return self._grant(worker, entries, now, alone=False) if entries else None

    def take_dropped(self, worker: str) -> list[str]:
        """Return the rows that the worker must drop, as they have ended elsewhere since the last call."""
        return self._dropped.pop(worker, [])

    def done(self, worker: str, row_id: str, now: float, *, batch_size: float = 1.0) -> bool:
        """Return whether this outcome counts. If not, it is stale and must not be committed.

        Stale: this worker does not have the row (any more). The first outcome wins.
        batch_size: rows that shared its forwards.
        """
        entry = self._release(worker, row_id)
        if entry is None:
            return False
        seat = self._seats[worker]
        self._paces.saw(entry.row, seconds=now - seat.last_end, batch_size=batch_size)
        seat.last_end, seat.done_shape = now, entry.row.shape
        self._proven.add(self._live[worker][0])
        self._done_at[self._live[worker][0]] += 1
        self._end(entry)
        self._too_large.pop(entry.row.shape, None)
        return True

    def failed(
        self, worker: str, row_id: str, error: object, *, retry: bool = True, may_be_spoilt: bool = False
    ) -> GivenUp | None:
        """Send the row to another worker, or return it when it is given up; stale reports change nothing.

        It comes back to a worker where it failed only once it has failed on every live one. may_be_spoilt:
        earlier rows of the process may be the cause, so the row gets a last try, as the first of a new one.
        """
        entry = self._release(worker, row_id)
        if entry is None:
            return None
        entry.errors += ((worker, error),)
        entry.tried |= {worker}
        if not retry:
            return self._give_up(entry, "its error would come again on every worker")
        num_errors = len(entry.errors)
        if num_errors >= self._faults.attempts and not self._copies.has(row_id):
            if entry.need == "new" or not may_be_spoilt:
                return self._give_up(entry, f"it failed {count_text(num_errors, 'time')}")
            self._put_back(entry, need="new")
        else:
            self._put_back(entry)
        return None

    def is_rows_own(self, worker: str, row_id: str) -> bool:
        """Return whether a row that failed as on a broken machine is itself the cause.

        It is if the machine has finished other rows since the row first failed like this, there or elsewhere;
        or, from the second time on, if the machine has finished any row and only such rows are left.
        """
        if worker not in self._seats or row_id not in self._seats[worker].rows:
            return False
        entry, host = self._seats[worker].rows[row_id], self._live[worker][0]
        if entry.done_before is None:
            entry.done_before = dict(self._done_at)
            self._num_doubted += 1
            return False
        are_all = self._closed and self._num_doubted == len(self._held)
        return not self._is_in_doubt(entry, host) or (are_all and self._done_at[host] > 0)

    def ran_out(self, worker: str, row_id: str, error: object, *, room: int) -> GivenUp | None:
        """The row ran out of memory on its own; return it if it would do so everywhere.

        Else it is tried elsewhere, or in a new process: end this one. room: bytes of memory that it had.
        """
        entry = self._release(worker, row_id)
        if entry is None:
            return None
        self._seats[worker].room = room
        entry.errors += ((worker, error),)
        shape, has_most = entry.row.shape, room + SLACK_BYTES >= self._largest
        if has_most and entry.need == "new" and len(self._too_large) < MAX_PACES:
            self._too_large[shape] = room
            # Other rows of this shape need no new process: the next failure of each is the last.
            for other in self._waiting.alone["new"].remove(lambda other: other.row.shape == shape):
                self._put_back(other, need="room")
        is_too_large = self._too_large.get(shape, -SLACK_BYTES - 1) + SLACK_BYTES >= self._largest
        if has_most and is_too_large and not self._copies.has(row_id):
            return self._give_up(entry, "it ran out of memory on its own, where there is most of it")
        self._put_back(entry, need="new" if has_most else "room")
        return None

    def num_for_new(self, worker: str) -> int:
        """How many rows wait for a new process in place of this worker's, as they failed in ones like it."""
        seat = self._seats.get(worker)
        if seat is None or not seat.num_leases:
            return 0
        return len(self._waiting.alone["new"]) if seat.room + SLACK_BYTES >= self._largest else 0

    def put_back(self, worker: str, row_ids: Iterable[str]) -> None:
        """Take rows back that were not rendered (drained, out of memory): no attempt is spent."""
        for row_id in row_ids:
            entry = self._release(worker, row_id)
            if entry is not None:
                self._put_back(entry)

    def saved(self, worker: str, row_id: str) -> None:
        """A checkpoint of the row was stored, so the row does not end its worker at once."""
        if worker in self._seats and row_id in self._seats[worker].rows:
            self._seats[worker].rows[row_id].saved_on = worker

    def rows_of(self, worker: str) -> tuple[str, ...]:
        return tuple(self._seats[worker].rows) if worker in self._seats else ()

    def in_hand(self) -> dict[str, int]:
        return {worker: len(seat.rows) for worker, seat in self._seats.items() if seat.rows}

    def lost(self, worker: str, *, suspects: Collection[str] | None = None, why: str = "") -> list[GivenUp]:
        """The worker is gone; return the rows quarantined for it. If it had no rows, it just left.

        suspects: those of its rows that may be the cause, if not all. why: what is known about it.
        """
        is_proven = self._is_proven(worker)
        seat, places = self._seats.pop(worker, Seat()), self._live.pop(worker, ())
        self._emptying.discard(worker)
        self._dropped.pop(worker, None)
        suspected = [row_id for row_id in seat.rows if suspects is None or row_id in suspects]
        is_alone = len(suspected or seat.rows) == 1
        struck = []
        for row_id, entry in seat.rows.items():
            is_excused = row_id not in suspected or entry.saved_on == worker
            entry.num_excused += is_excused
            if not is_excused or entry.num_excused > MOST_EXCUSED:
                struck.append(row_id)
        blamed = struck if is_proven else []
        given_up = []
        for row_id, entry in seat.rows.items():
            self._copies.release(worker, row_id)
            entry.tried |= set(places)
            entry.deaths += row_id in blamed
            if row_id in struck:
                entry.struck_on += (worker,)
                entry.was_alone, entry.why = is_alone, why
            is_killer = self._faults.quarantines(entry.deaths, is_alone=entry.was_alone)
            if row_id in blamed and is_killer and not self._copies.has(row_id):
                given_up.append(self._quarantine(entry))
            else:
                is_doubtful = row_id not in struck and self._is_in_doubt(entry, places[0])
                self._put_back(entry, is_next=blamed == [row_id], is_doubtful=is_doubtful)
        return given_up

    def give_up_killers(self, sound: Collection[str]) -> list[GivenUp]:
        """No more workers will come: give up rows that killed as many as a row may, the last one alone.

        On a machine that has finished no row, deaths do not count against rows. Here they do if the machine
        is `sound`, as it has rendered rows of other models.
        """

        def is_killer(entry: Entry) -> bool:
            is_counted = not entry.tried.isdisjoint(sound)
            return is_counted and self._faults.quarantines(entry.strikes, is_alone=entry.was_alone)

        killers = self._waiting.alone["proven"].remove(is_killer)
        for entry in killers:
            entry.deaths = entry.strikes
        return [self._quarantine(entry) for entry in killers]

    def seconds_per_row(self, worker: str, row_ids: Iterable[str]) -> float | None:
        """Return the seconds that each of these rows of a worker takes; None if it has done no such row."""
        seat = self._seats.get(worker)
        shapes = {seat.rows[row_id].row.shape for row_id in row_ids if row_id in seat.rows} if seat else set()
        if seat is None or shapes != {seat.done_shape}:
            return None
        return self._paces.seconds_per_row(shapes.pop())

    def _judges(self, need: Need) -> Mapping[str, Whereabouts]:
        """Return the workers that may get a row now which must be rendered alone, for this need.

        Suspects go to machines that can find one guilty, if there are any: else a killer would go from one
        fresh machine to the next, in a cluster that always adds new ones.
        """
        if need == "proven":
            proven = {worker: places for worker, places in self._live.items() if self._is_proven(worker)}
            may_prove = self._waiting.fresh or self._waiting.returned  # these go first
            return proven or ({} if may_prove else self._live)
        least = self._largest - SLACK_BYTES
        return {
            worker: self._live[worker]
            for worker, seat in self._seats.items()
            if seat.room >= least and not (need == "new" and seat.num_leases)
        }

    def _is_proven(self, worker: str) -> bool:
        return not self._proven.isdisjoint(self._live.get(worker, ())[:1])

    def _is_in_doubt(self, entry: Entry, host: str) -> bool:
        """Return whether a machine where the row failed may be broken: it has finished no row since."""
        return entry.done_before is not None and entry.done_before.get(host, 0) == self._done_at[host]

    def _grant(self, worker: str, entries: list[Entry], now: float, *, alone: bool) -> Lease:
        self._seats[worker].grant(entries, alone=alone, now=now)
        return Lease(tuple(LeasedRow(entry.row, entry.attempts + 1) for entry in entries), alone=alone)

    @property
    def _largest(self) -> int:
        return max((seat.room for seat in self._seats.values()), default=0)

    def _lease_rows(self, num_held: int, shape: str) -> int:
        """Return how many rows of a shape to lease to a worker that has `num_held` rows."""
        row_s = self._paces.seconds_per_row(shape)
        share = None
        if self._closed:
            num_workers = max(len(self._seats), self._num_expected)
            even = max(0, -(-len(self._held) // num_workers) - num_held)
            share = -(-len(self._waiting) // (num_workers * self._leases_per_worker))
            # Ever smaller leases would be ever smaller forwards, which cost nearly as much as full ones.
            share = even if row_s is None else max(share, min(self._paces.batch_size(shape), even))
        return self._size.rows(seconds_per_row=row_s, share=share)

    def _release(self, worker: str, row_id: str) -> Entry | None:
        """Take the row out of the worker's hands; None when it is not there."""
        seat = self._seats.get(worker)
        entry = seat.release(row_id) if seat else None
        if entry is not None:
            self._copies.release(worker, row_id)
        return entry

    def _put_back(
        self, entry: Entry, *, need: Need | None = None, is_next: bool = False, is_doubtful: bool = False
    ) -> None:
        """Let the row be rendered again, unless another worker still has it.

        need: what the worker must have that renders it alone. is_next: as the next suspect, so that a killer
        is found before the machine is blamed for others too. is_doubtful: last, as its machine may be the
        cause.
        """
        if not self._copies.has(entry.row.row_id):
            entry.need = need or entry.need
            self._waiting.put_back(entry, is_next=is_next, is_doubtful=is_doubtful)

    def _end(self, entry: Entry) -> None:
        """The row is done or given up: other workers that have it must drop it."""
        row_id = entry.row.row_id
        self._held.remove(row_id)
        self._num_doubted -= entry.done_before is not None
        for worker in self._copies.end(row_id):
            self._seats[worker].release(row_id)
            self._dropped.setdefault(worker, []).append(row_id)

    def _quarantine(self, entry: Entry) -> GivenUp:
        last = f"; the last time: {entry.why}" if entry.why else ""
        times = count_text(entry.deaths, "time")
        return self._give_up(entry, f"its worker died {times} while rendering it{last}", is_killer=True)

    def _give_up(self, entry: Entry, reason: str, *, is_killer: bool = False) -> GivenUp:
        self._end(entry)
        return GivenUp(
            row=entry.row,
            attempts=entry.attempts,
            errors=entry.errors,
            reason=reason,
            struck_on=entry.struck_on if entry.deaths else (),
            is_killer=is_killer,
        )
