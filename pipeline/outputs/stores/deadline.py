"""In: a read that only spares work. Out: its answer if it comes soon, or none: then the work is done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from framefleet.pipeline.outputs.stores.retries import Reply

# An entry of a hundred megabytes takes seconds; what it spares does too.
WITHIN_S = 10.0


class Soon:
    """Reads for one thread, in another, so that a store that is out of reach holds up nothing.

    While one answer is overdue nothing else is asked: the store would not answer that either.
    """

    def __init__(self, name: str) -> None:
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._overdue: Future[Any] | None = None

    def ask(self, read: Callable[[], Reply | None]) -> Reply | None:
        """Return what `read` returns, raise what it raises; None where that takes too long."""
        if self._overdue and not self._overdue.done():
            return None
        asked = self._reader.submit(read)
        if not wait([asked], WITHIN_S).done:
            self._overdue = asked
            return None
        return asked.result()
