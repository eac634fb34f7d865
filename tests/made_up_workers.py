"""Two workers in place of a fleet, for tests of what a driver makes of their reports: no Ray, no model.

Table, index, lock, driver, parts, and clips in a folder are real. Clips are wrong if their rows had company,
but for those that were compared, and equal.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from framefleet import Store, Summary
from framefleet.cluster.fleet.events import Event, Ready, Reported
from framefleet.cluster.worker.messages import Assignment, Hello, StoredRow, WorkerReport
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.pipeline.outputs.encode_clip import EncodedClip, store_clip
from framefleet.pipeline.outputs.parts.pending_clips import announce, intents_in, sweep
from framefleet.pipeline.outputs.parts.records import public_arguments
from framefleet.pipeline.outputs.parts.seals import sweep_late
from framefleet.pipeline.render.audit.verdict import (
    DIFFERED,
    EQUAL,
    Audited,
    Verdict,
    apart,
    kind_of,
    with_remark,
)
from framefleet.pipeline.rows.identity import LaneKey
from tests.driving import StandIns, begun, drive, left_of
from tests.rows import RECORD

RIGHT, WRONG = "a" * 64, "b" * 64


@dataclass
class Workers(StandIns):
    """Two of them, in place of a fleet. verdicts: of the audit that comes after so many rows."""

    store: Store
    hello: Hello
    seed: int
    verdicts: dict[int, Verdict]
    num_workers: int = 2
    hands: dict[str, list[Assignment]] = field(default_factory=dict)
    knows: set[str] = field(default_factory=set)  # workers that render such rows by plain calls
    compared: set[str] = field(default_factory=set)  # rows that were audited, and equal
    num_rendered: int = 0
    num_started: int = 0
    starting: list[str] = field(default_factory=list)  # that have not said that they are ready
    leaving: set[str] = field(default_factory=set)  # that hand back their rows

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        for _ in range(self.num_workers):
            self._start()

    def _start(self) -> None:
        self.starting.append(f"worker-{self.num_started}")
        self.num_started += 1

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was started."""

    def exchange(self, worker: str, assignments: Sequence[Assignment], dropped: Sequence[str]) -> None:
        kept = [one for one in self.hands.get(worker, []) if one.row_id not in dropped]
        self.hands[worker] = [*kept, *assignments]

    def drain(self, worker: str) -> None:
        self.leaving.add(worker)
        self.hands.setdefault(worker, [])

    def retire(self, worker: str, lane: LaneKey | None = None) -> None:
        del self.hands[worker]
        if not self.has_too_many:
            self._start()

    def wait(self, timeout_s: float) -> list[Event]:
        if self.starting:
            started, self.starting = self.starting, []
            return [Ready(worker, self.hello) for worker in started]
        worker = self._random.choice(list(self.hands))
        return [Reported(worker, WorkerReport(**self._report(worker)))]

    def _report(self, worker: str) -> dict[str, Any]:
        rows, told = self.hands.pop(worker), {}
        self._random.shuffle(rows)
        some = self._random.randint(0, len(rows))
        due = [count for count in self.verdicts if count <= self.num_rendered]
        if due and rows:
            verdict = self.verdicts.pop(due[0])
            row = rows[0]
            told["audited"] = (
                Audited(kind=kind_of(row.request), row_id=row.row_id, verdict=verdict, seconds=1.0),
            )
            if verdict == "differs":
                self.knows.add(worker)
            elif verdict == "equal":
                self.compared.add(row.row_id)
        ended = [self._render(worker, row) for row in rows[:some]]
        self.hands[worker] = rows[some:]
        if worker in self.leaving:
            self.hands[worker] = []
            told["handed_back"] = tuple(row.row_id for row in rows[some:])
        return {"rendered": tuple(ended), **told}

    def _clip(self, row: Assignment, *, was_batched: bool) -> bytes:
        """Return the clip of a row; its frames' digest, too."""
        return (WRONG if was_batched else RIGHT).encode()

    def _render(self, worker: str, row: Assignment) -> StoredRow:
        if row.is_apart:
            self.knows.add(worker)
        was_batched = worker not in self.knows
        is_equal = was_batched and row.row_id in self.compared
        content = self._clip(row, was_batched=was_batched and not is_equal)
        record = replace(
            RECORD,
            row_id=row.row_id,
            frames_sha256=content[:64].decode(),
            media_sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
            model_digest=self.hello.model_digest,
            arguments=public_arguments(row.request.arguments),
            recipe=row.request.recipe,
        )
        if is_equal or not was_batched:
            record = with_remark(record, EQUAL if is_equal else apart(DIFFERED))
        announce(self.store, record, was_batched=was_batched)
        stored = store_clip(self.store, EncodedClip(suffix=".mp4", content=content, record=record))
        self.num_rendered += 1
        return StoredRow(record=stored, was_batched=was_batched)


def render_by(workers: Workers, resolved: ResolvedJob) -> Summary:
    """Do what `render` does while it holds the lock."""
    store = resolved.store
    with begun(resolved, beat_s=0.05, expiry_s=0.2) as (_, index, lock):
        summary = drive(left_of(resolved, index, lock), workers)
        sweep_late(store, lock)
        sweep(store, intents_in(store), lock)
        return summary
