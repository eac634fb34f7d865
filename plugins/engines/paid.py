"""Add up what all runs of a job have paid, its drafts too, and stop before they exceed `max_cost`."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property

from framefleet.api.engines import PAID, Halted, paid_before
from framefleet.api.errors import JobError
from framefleet.api.outputs import Store

_ROUNDING = 1e-9  # of sums
_TURN_S = 0.5  # between two looks at what is under way


class Paid:
    """Thread-safe. Each process writes its own file."""

    def __init__(self, store: Store, max_cost: float | None) -> None:
        self._store, self._max_cost = store, max_cost
        self._path = f"{PAID}/paid-{uuid.uuid4().hex}.json"
        self._lock = threading.Lock()
        self.cost = 0.0  # of this process
        self._under_way = 0.0  # cost of requests without an answer yet
        self._stored, self._storing = 0.0, threading.Lock()

    @contextmanager
    def paying(self, price: float, wait: Callable[[float], None]) -> Iterator[Callable[[], None]]:
        """Reserve the price of a request; yield a function to call if it is due. Raises Halted.

        Until then it counts in this process only, and afterwards in the output. wait: called with seconds
        while requests without an answer, which may turn out to cost nothing, leave no room for this one.
        """
        while not self._reserve(price):
            wait(_TURN_S)
        is_paid = False

        def note() -> None:
            nonlocal is_paid
            with self._lock:
                is_paid = True
                self._under_way -= price
                self.cost += price
            self._keep()

        try:
            yield note
        finally:
            if not is_paid:
                with self._lock:
                    self._under_way -= price

    def _reserve(self, price: float) -> bool:
        """Return whether there is room for a price now. Raises Halted if there will be none."""
        with self._lock:
            if self._max_cost is not None:
                paid = self._before + self.cost
                room = self._max_cost + _ROUNDING - paid
                if price > room:
                    said = f"all runs together paid {paid:.2f} of {self._max_cost:.2f}"
                    fix = "raise engine.max_cost, and run the same command again"
                    raise Halted(f"engine.max_cost is reached: {said}", fix, "spent")
                if self._under_way + price > room:
                    return False
            self._under_way += price
            return True

    @cached_property  # with a limit, no other process pays meanwhile: see `open_engine`
    def _before(self) -> float:
        """Return what other processes have paid. Raises Halted."""
        try:
            return paid_before(self._store, but=self._path)
        except JobError as error:
            raise Halted(error.problem, error.fix, "job") from None

    def _keep(self) -> None:
        """Store what this process has paid; one request may do it for several clips."""
        with self._storing:
            if (cost := self.cost) > self._stored:
                self._store.write(self._path, json.dumps({"cost": cost}).encode())
                self._stored = cost
