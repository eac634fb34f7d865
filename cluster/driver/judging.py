"""Audits of users' recipes: rows, rendered again by processes that have run none of them, and compared.

A process that has run a user's code cannot judge it: what makes rows wrong may be there still. So a row that
is due is not committed before a new worker has rendered it by a plain call, as its first work. Where that
differs, another new worker says whether the row repeats at all.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from framefleet.cluster.driver.feed import Pending
from framefleet.cluster.worker.messages import Assignment, StoredRow
from framefleet.pipeline.outputs.parts.records import Record
from framefleet.pipeline.render.audit.verdict import Digests, Verdict, verdict_of
from framefleet.pipeline.rows.lane_key import LaneKey

_MOST_JUDGES = 4  # that may fail to render a row which was rendered before


@dataclass(slots=True, kw_only=True)
class Case:
    """A row that is due. worker: that rendered it. first: how a first judge did, if otherwise."""

    pending: Pending
    stored: StoredRow
    worker: str
    first: StoredRow | None = None
    num_judges: int = 0

    @property
    def row_id(self) -> str:
        return self.stored.record.row_id


@dataclass(slots=True)
class Docket:
    """The cases of all lanes. used: workers that have had a row."""

    _waiting: defaultdict[LaneKey, deque[Case]] = field(default_factory=lambda: defaultdict(deque))
    _judged: dict[str, Case] = field(default_factory=dict)  # by the worker that renders it
    used: set[str] = field(default_factory=set)

    def add(self, lane: LaneKey, case: Case) -> None:
        self._waiting[lane].append(case)

    def num_waiting(self, lane: LaneKey) -> int:
        return len(self._waiting[lane])

    def is_open(self, lane: LaneKey) -> bool:
        """Tell whether any row of a lane is still to be judged."""
        return bool(self._waiting[lane]) or any(case.pending.lane == lane for case in self._judged.values())

    def judges(self, worker: str) -> bool:
        return worker in self._judged

    def take(self, lane: LaneKey, worker: str) -> Assignment | None:
        """Return the row that a worker must render before any other of its lane, if one waits."""
        if worker in self.used or not self._waiting[lane]:
            return None
        case = self._judged[worker] = self._waiting[lane].popleft()
        case.num_judges += 1
        self.used.add(worker)
        return Assignment(row_id=case.row_id, request=case.pending.request, attempt=1, is_judged=True)

    def judge(self, worker: str, stored: StoredRow) -> tuple[Case, Verdict] | None:
        """Take the row that a judge rendered; return the verdict, if it is reached."""
        case = self._judged.get(worker)
        if case is None or case.row_id != stored.record.row_id:
            return None
        del self._judged[worker]
        kept, now = recorded_digests(case.stored.record), recorded_digests(stored.record)
        if now != kept and case.first is None:
            case.first = stored
            self._waiting[case.pending.lane].appendleft(case)
            return None
        first = now if case.first is None else recorded_digests(case.first.record)
        return case, verdict_of(kept, first, now)

    def failed(self, worker: str) -> Case | None:
        """A judge did not render its row; return the case if no other judge will."""
        case = self._judged.pop(worker, None)
        if case is None or case.num_judges >= _MOST_JUDGES:
            return case
        self._waiting[case.pending.lane].appendleft(case)
        return None

    def left(self, worker: str) -> None:
        """A judge has not come to its row, which is not the row's doing: another new worker will."""
        if case := self._judged.pop(worker, None):
            case.num_judges -= 1
            self._waiting[case.pending.lane].appendleft(case)

    def close(self) -> list[Case]:
        """Return all open cases: nobody will judge them."""
        cases = [*self._judged.values(), *(case for line in self._waiting.values() for case in line)]
        self._judged.clear()
        self._waiting.clear()
        return cases


def recorded_digests(record: Record) -> Digests:
    """Return the digests of everything that a row rendered."""
    return record.frames_sha256, record.audio_sha256, record.extra_outputs, record.extra_outputs_sha256
