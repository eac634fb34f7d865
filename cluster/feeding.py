"""From the table to the dispatcher's window, as far as there is room: what waits, and what is grouped how."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice

from framefleet.cluster.dispatcher import Dispatcher
from framefleet.cluster.feed import Pending, by_prompt_lengths, pending_rows
from framefleet.cluster.lease import Row
from framefleet.cluster.work import Work
from framefleet.pipeline.rows.counted_apart import CountedApart

log = logging.getLogger(__name__)


class Feeding:
    """Reads the table, and once more for rows that are to be rendered again.

    pending: the rows that wait or are leased. again: rows for the next pass, which others add to. adopts:
    takes a row that needs no rendering, and says so.
    """

    def __init__(
        self, work: Work, dispatcher: Dispatcher, again: set[str], adopts: Callable[[str, Pending], bool]
    ) -> None:
        self.pending: dict[str, Pending] = {}
        self._work, self._dispatcher, self._again, self._adopts = work, dispatcher, again, adopts
        self._rows = self._pass()
        self._prompt_lengths: CountedApart | None = None

    def fill(self) -> None:
        """Take as many rows as there is room for."""
        while room := self._dispatcher.room:
            rows = list(islice(self._rows, room))
            for row in self._reshaped([row for row in rows if not self._is_adopted(row)]):
                assert isinstance(row.payload, Pending)
                self.pending[row.row_id] = row.payload
                self._dispatcher.add(row)
            if len(rows) == room:
                continue
            if not self._again:
                self._dispatcher.close()
                return
            self._work.index.reopen(self._again)
            self._again.clear()
            self._rows = self._pass()

    def heed_lengths(self, lengths: bytes) -> None:
        """Forwards were seen to be as long as prompts. lengths: a pickled `PromptLengths`."""
        if not self._prompt_lengths:
            self._prompt_lengths = CountedApart(lengths)

    def regroup(self) -> None:
        """Bring rows that wait together by the lengths of their prompts, as soon as these can be counted."""
        if self._prompt_lengths and self._prompt_lengths.becomes_ready():
            log.info("forwards are as long as the prompts: rows of equal lengths are brought together")
            self._dispatcher.regroup(self._reshaped)

    def close(self) -> None:
        if self._prompt_lengths:
            self._prompt_lengths.close()

    def _pass(self) -> Iterator[Row]:
        """Read what is to be rendered from the table, from its beginning."""
        return pending_rows(self._work.table, self._work.rows, self._work.index)

    def _is_adopted(self, row: Row) -> bool:
        assert isinstance(row.payload, Pending)
        return self._adopts(row.row_id, row.payload)

    def _reshaped(self, rows: list[Row]) -> list[Row]:
        """Tell rows apart by the lengths of their prompts too, where forwards are as long as these."""
        return by_prompt_lengths(rows, self._prompt_lengths) if self._prompt_lengths else rows
