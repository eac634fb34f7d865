"""What audits of workers say of rows: which records they speak for, which kinds are to be apart."""

from __future__ import annotations

import logging

from framefleet.cluster.checkpoints import HalfDoneRows
from framefleet.cluster.commit import Committer
from framefleet.cluster.dispatcher import Dispatcher
from framefleet.cluster.tally import Tally
from framefleet.cluster.work import Work
from framefleet.pipeline.outputs.parts.records import Record
from framefleet.pipeline.render.audit.audited import Audited, kind_of, level_of, told
from framefleet.pipeline.request import Request

log = logging.getLogger(__name__)


class Audits:
    """again: rows that had a record, and wait for the next pass over the table."""

    def __init__(
        self,
        work: Work,
        committer: Committer,
        checkpoints: HalfDoneRows,
        dispatcher: Dispatcher,
        tally: Tally,
    ) -> None:
        self.again: set[str] = set()
        self._apart: set[str] = set()  # kinds of rows that differed in company
        self._is_on = work.setup.audit.is_on(work.setup.batching.mode)
        self._index, self._adoption = work.index, work.adoption
        self._committer, self._checkpoints = committer, checkpoints
        self._dispatcher, self._tally = dispatcher, tally

    def is_apart(self, request: Request) -> bool:
        """Tell whether rows like this one are rendered by plain calls."""
        return kind_of(request) in self._apart

    def note_unproven(self, record: Record, request: Request, *, worker: str) -> None:
        """A row that had company has a record, for which no audit of its worker has spoken yet."""
        if self._is_on:
            self._index.note_unproven(
                record.row_id, kind=kind_of(request), worker=worker, num_bytes=record.bytes
            )

    def follow(self, worker: str, audited: Audited) -> None:
        """Trust what an audit speaks for, or have it rendered again, whichever worker rendered it."""
        self._tally.audited(audited)
        kind = audited.kind
        log.log(level_of(audited), "%s: %s", worker, told(audited))
        if audited.verdict == "equal":
            self._index.prove(kind=kind, worker=worker)
        elif audited.verdict == "differs" and kind not in self._apart:
            self._apart.add(kind)
            self._checkpoints.drop()  # of rows that had company, maybe of this kind
            self._adoption.refuse(kind)
            self._take_back(kind)

    def _take_back(self, kind: str) -> None:
        rows = self._index.take_unproven(kind)
        self._committer.withdraw(rows, kind=kind)
        if rows:
            log.warning("rows of %s: %s that had a record are rendered again", kind, len(rows))
            self.again.update(rows)
            self._tally.withdrawn(len(rows), num_bytes=sum(rows.values()))
            self._dispatcher.reopen()
