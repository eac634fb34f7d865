"""In: one request to a store. Out: its answer, however long the store was out of reach, up to a limit.

The one place that waits: libraries below try once or twice. All threads of a process that use a store share
what is known of it, so that the log has a line when an outage begins, one every minute, and one at its end.
Reads that only spare work are not waited for (`Soon`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, wait_random_exponential

from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.metrics import STORE_RETRIES, Counts, Spending
from framefleet.pipeline.outputs.stores.store_errors import in_a_line, trouble_of

OUTAGE_S = 600.0  # servers and networks are restarted in minutes; a fleet that ends loads its models again
# A store that has never answered may be a mistake in the job; a gateway's restart is borne, no more.
FIRST_ANSWER_S = 30.0
# Some ten seconds: gateways of a cluster learn of new keys, and files of credentials are renewed, one by one.
MAX_REFUSALS = 8
_FIRST_REFUSALS = 2
TOLD_AFTER_S, TOLD_EVERY_S = 10.0, 60.0
# Never the same for two: thousands of writers must not come back at once.
_PAUSE = wait_random_exponential(multiplier=0.2, max=5)

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")
# An entry of a hundred megabytes takes seconds; what it spares does too.
WITHIN_S = 10.0


class Patience:
    """What is borne of one store. limit_s: how long it may be out of reach.

    has_answered: whether it ever did, to this process or to the one whose store this is a copy of.
    """

    def __init__(self, where: str, limit_s: float) -> None:
        self.where, self.limit_s, self.has_answered = where, limit_s, False
        self.counts = Counts()
        self._lock = threading.Lock()  # guards the three below
        self._silent_since: float | None = None  # its first failure since it last answered anybody
        self._num_failing = 0  # requests that are made again
        self._told_at: float | None = None

    def ride_out(self, ask: Callable[[], Reply], *, reopen: Callable[[], None] | None = None) -> Reply:
        """Return what `ask` returns; raise what it raises when that will not pass, or not in time.

        reopen: takes credentials anew, before a refused request is made again; None: refusals are final.
        """
        request = _Request(self, reopen)
        try:
            answer = Retrying(retry=retry_if_exception(request.may_pass), wait=_PAUSE, reraise=True)(ask)
        except FileNotFoundError:
            self._note_answer()
            raise
        else:
            self._note_answer()
            return answer
        finally:
            request.end()

    @property
    def silent_s(self) -> float:
        """Since when the store has answered nobody here, in seconds; 0 while it does."""
        since = self._silent_since
        return 0.0 if since is None else time.monotonic() - since

    def begin_failing(self) -> None:
        with self._lock:
            self._num_failing += 1

    def end_failing(self, since: float) -> None:
        with self._lock:
            self._num_failing -= 1
            is_over = self._told_at is not None and not self._num_failing and self._silent_since is None
            if is_over:
                self._told_at = None
        if is_over:
            log.warning("%s answers again, after %.0f s", self.where, time.monotonic() - since)

    def bears(self, error: BaseException, failing_since: float) -> bool:
        """Tell whether a request that has failed since then is made again; and the log, now and then."""
        now = time.monotonic()
        limit_s = self.limit_s if self.has_answered else min(self.limit_s, FIRST_ANSWER_S)
        with self._lock:
            if self._silent_since is None:
                self._silent_since = now
            failing_s = now - min(self._silent_since, failing_since)
            is_told_again = self._told_at is None or now - self._told_at >= TOLD_EVERY_S
            is_told = TOLD_AFTER_S <= failing_s < limit_s and is_told_again
            if is_told:
                self._told_at = now
        if is_told:
            log.warning(
                "%s has not answered for %.0f s (%s); trying for another %.0f s, and working on as far "
                "as possible",
                self.where,
                failing_s,
                public_text(f"{type(error).__name__}: {in_a_line(error)}"),
                limit_s - failing_s,
            )
        return failing_s < limit_s

    def _note_answer(self) -> None:
        self.has_answered = True
        with self._lock:
            self._silent_since = None


class _Request:
    """One request, and what became of its attempts."""

    def __init__(self, patience: Patience, reopen: Callable[[], None] | None) -> None:
        self._patience, self._reopen = patience, reopen
        self._failing_since: float | None = None
        self._num_refused = 0

    def may_pass(self, error: BaseException) -> bool:
        """Note a failure; tell whether the request is made again."""
        will_pass = self._may_pass(error)
        self._patience.counts.add(STORE_RETRIES, will_pass)
        return will_pass

    def _may_pass(self, error: BaseException) -> bool:
        trouble = trouble_of(error)
        if trouble not in ("unreachable", "refused"):
            return False
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            self._patience.begin_failing()
        if trouble == "unreachable":
            return self._patience.bears(error, self._failing_since)
        return self._is_opened_anew()

    def end(self) -> None:
        if self._failing_since is not None:
            self._patience.end_failing(self._failing_since)

    def _is_opened_anew(self) -> bool:
        max_refusals = MAX_REFUSALS if self._patience.has_answered else _FIRST_REFUSALS
        if self._reopen is None or self._num_refused >= max_refusals:
            return False
        self._num_refused += 1
        self._reopen()
        return True


class Soon:
    """Reads for one thread, in another, so that a store that is out of reach holds up nothing.

    While one answer is overdue nothing else is asked: the store would not answer that either.
    """

    def __init__(self, name: str, spending: Spending = nullcontext) -> None:
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._spending = spending
        self._overdue: Future[Any] | None = None

    def ask(self, read: Callable[[], Reply | None]) -> Reply | None:
        """Return what `read` returns, raise what it raises; None where that takes too long."""
        if self._overdue and not self._overdue.done():
            return None
        asked = self._reader.submit(read)
        with self._spending("store"):
            is_late = not wait([asked], WITHIN_S).done
        if is_late:
            self._overdue = asked
            return None
        return asked.result()
