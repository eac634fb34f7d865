"""The audits of a job: which rows are due, what records say of others, and what follows a difference."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from framefleet.cluster.driver.commit import Committer, HalfDoneRows
from framefleet.cluster.driver.progress import AuditFigures
from framefleet.cluster.driver.run import Run
from framefleet.cluster.driver.tally import Tally
from framefleet.cluster.worker.messages import StoredRow
from framefleet.pipeline.outputs.parts.records import Record
from framefleet.pipeline.render.audit import schedule, verdict as verdicts
from framefleet.pipeline.render.audit.verdict import Audited

log = logging.getLogger(__name__)


class Audits:
    """Decides for all workers, because their rows are one job's. Kinds that differed before stay apart."""

    def __init__(
        self,
        run: Run,
        committer: Committer,
        checkpoints: HalfDoneRows,
        reopen: Callable[[], None],
        tally: Tally,
    ) -> None:
        """reopen: called when rows with a record must be rendered again."""
        audit, counts = run.audit, run.index.counts()
        self._is_on = audit.is_on(run.batching.mode)
        self._schedule = schedule.AuditSchedule(audit.odds(counts.pending) if self._is_on else None)
        self._share = audit.limit if self._is_on else None
        self._kinds = schedule.AuditedKinds()
        self._one: schedule.OneAudit | None = None  # row, where that is all that the share allows
        if self._share and schedule.is_small(self._share, counts.pending + counts.done):
            self._one = schedule.OneAudit(self._kinds)
        self._time_before = run.model_time  # of earlier runs
        self._longest_s: float | None = None  # of an audit
        self._due: set[str] = set()  # of the rows that wait or are leased
        self._offered: set[str] = set()  # of these, where a share limits: decided as they were leased
        self._num_equal: Counter[str] = Counter()  # by kind
        self._num_differing = 0  # kinds, found in this run
        self._num_unaudited = 0  # with a record; neither plain calls nor compared
        self._num_unknown = 0  # of these, rows that no schedule counts
        # By kind, the workers that were given rows of it to batch; kinds beyond `MAX_KINDS` share one set.
        self._workers: defaultdict[str, set[str]] = defaultdict(set)
        self._adoption = run.adoption
        self.is_apart = self._adoption.is_apart  # rows of these kinds are rendered by plain calls
        self._committer, self._checkpoints = committer, checkpoints
        self._reopen, self._tally = reopen, tally

    def choose(self, row_id: str, kind: str, *, may_spoil: bool = False) -> None:
        """Decide whether a row is audited. Called once for each row, in the order of the table.

        Where audits may take but a share of the time, that is decided as the row is leased. may_spoil: the
        row may change what its plain call would need. Such rows are never compared: `verify` does.
        """
        if may_spoil:
            self._schedule.pass_over(kind)
        elif self._share is not None:
            if self._one:
                self._one.add(row_id, kind)
        elif not self._adoption.is_apart(kind) and self._schedule.is_due(kind, row_id):
            self._due.add(row_id)

    def order(self, row_id: str, kind: str) -> bool:
        """Return whether a row that is leased now is audited: it was chosen, or replaces one that was."""
        if self._adoption.is_apart(kind) or kind in self._schedule.settled:
            return False
        if self._share is not None and row_id not in self._offered:
            self._offered.add(row_id)
            is_next = self._one.is_next(row_id, kind) if self._one else True
            time, num_open = self._time_before + self._tally.model_time, len(self._due)
            is_in_time = schedule.is_affordable(
                self._share, time, num_open=num_open, longest_s=self._longest_s
            )
            # No share limits audits once rows of any kind differed, in this run or before.
            if not (self._adoption.apart or (is_next and is_in_time)):
                self._schedule.pass_over(kind)
            elif self._schedule.is_due(kind, row_id) or self._schedule.pays(kind):
                self._due.add(row_id)
        if row_id not in self._due and self._share is None and self._schedule.pays(kind):
            self._due.add(row_id)
        return row_id in self._due

    def adopted(self, stored: StoredRow, kind: str) -> Record:
        """Do what `ended` does, for an adopted clip: nobody here could choose it for an audit."""
        is_compared = verdicts.remark_of(stored.record.environment) in verdicts.EQUALS
        self._num_unknown += stored.was_batched and not is_compared
        return self.ended(stored.record, kind, was_batched=stored.was_batched)

    def ended(self, record: Record, kind: str, *, was_batched: bool) -> Record:
        """Note a row that gets its record now; return the record, with what audits say about the row."""
        was_due = self._was_due(record.row_id)
        if was_batched and self._kinds.saw(kind, record.batch_size) and self._share is not None:
            self._schedule.owe(kind)  # its forwards were never as large where it was compared
        if not was_batched:
            if was_due and not self._adoption.is_apart(kind):
                self._schedule.owe(kind)
            return record
        remark = verdicts.remark_of(record.environment)
        if remark in verdicts.EQUALS or not self._is_on:
            return record
        self._num_unaudited += 1
        if remark == verdicts.UNREPEATABLE or kind in self._schedule.settled:
            return verdicts.with_remark(record, verdicts.UNREPEATABLE)
        if was_due:  # there was no memory for its plain call
            self._schedule.miss(kind)
        remark = verdicts.not_compared(self._num_equal[kind], recipe=record.recipe)
        return verdicts.with_remark(record, remark)

    def given_up(self, row_id: str, kind: str) -> None:
        """A row failed for good. If it was to be audited, another one is audited instead."""
        if self._was_due(row_id):
            self._schedule.owe(kind)

    def leased(self, worker: str, kinds: Iterable[str]) -> None:
        """Note the kinds of rows that a worker batches."""
        for kind in kinds:
            if not self.is_apart(kind):
                self._workers[self._counted(kind)].add(worker)

    def left(self, worker: str) -> None:
        """The worker's process has ended."""
        for workers in self._workers.values():
            workers.discard(worker)

    def spoiled(self, worker: str, audited: Audited) -> set[str]:
        """Return the workers whose processes cannot be trusted after an audit that this worker made.

        What made rows differ may still be there, in code or in state that no comparison shows. So plain calls
        of such rows are made in new processes.
        """
        if audited.verdict != "differs":
            return set()
        return {worker, *self._workers.get(self._counted(audited.kind), ())}

    def _counted(self, kind: str) -> str:
        """Return what stands for a kind in `_workers`."""
        is_counted = kind in self._workers or len(self._workers) < schedule.MAX_KINDS
        return kind if is_counted else schedule.OTHER_KINDS

    def follow(self, worker: str, audited: Audited) -> int:
        """Act on the result of an audit; return how many rows must be rendered again."""
        self._tally.audited(audited)
        self._longest_s = max(audited.seconds, self._longest_s or 0.0)
        kind = audited.kind
        self._kinds.compared(kind, audited.batch_size)
        log.log(verdicts.level_of(audited), "%s: %s", worker, verdicts.verdict_text(audited))
        if self._adoption.is_apart(kind):
            return 0  # known by now: it was under way
        if audited.verdict == "equal":
            self._num_equal[kind] += 1
            return 0
        self._schedule.settled.add(kind)
        if audited.verdict == "unrepeatable":
            return 0
        self._num_differing += 1
        self._num_equal.pop(kind, None)
        self._adoption.refuse(kind)
        self._checkpoints.drop()  # of rows that were batched, maybe of this kind
        return self._take_back(kind)

    def figures(self) -> AuditFigures | None:
        """Return what audits say about this run's rows so far; None if there are no audits."""
        if not self._is_on:
            return None
        most_wrong = self._schedule.most_wrong(num_differing=self._num_differing)
        return AuditFigures(
            num_equal=self._num_equal.total(),
            num_unaudited=self._num_unaudited,
            most_wrong=min(most_wrong + self._num_unknown, self._num_unaudited),
            kinds=self._kinds.outcomes(),
        )

    def _was_due(self, row_id: str) -> bool:
        was_due = row_id in self._due
        self._due.discard(row_id)
        self._offered.discard(row_id)
        return was_due

    def _take_back(self, kind: str) -> int:
        """Take back the records of a kind that differs; return how many rows are rendered again."""
        withdrawn = self._committer.withdraw(kind)
        if withdrawn.num_rows:
            log.warning("rows of %s that had a record and are rendered again: %s", kind, withdrawn.num_rows)
            self._num_unaudited -= withdrawn.num_rows - withdrawn.num_before
            self._tally.withdrawn(
                withdrawn.num_rows, num_bytes=withdrawn.num_bytes, num_before=withdrawn.num_before
            )
            self._reopen()
        if withdrawn.num_elsewhere:
            log.warning(
                "rows of %s that are not in the table, keep their records and may be wrong: %s; to have such "
                "rows rendered again, put them back into the table",
                kind,
                withdrawn.num_elsewhere,
            )
        return withdrawn.num_rows
