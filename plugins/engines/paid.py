"""What all runs of a job have paid for: written into the output before a clip is created."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress

from framefleet.api.engines import Halted
from framefleet.api.outputs import Store
from framefleet.api.texts import parse_json

_FOLDER = "engine"


class Paid:
    """From any thread of one process; each process has a file of its own."""

    def __init__(self, store: Store, max_cost: float | None) -> None:
        self._store, self._max_cost = store, max_cost
        self._path = f"{_FOLDER}/paid-{uuid.uuid4().hex}.json"
        self._lock = threading.Lock()
        self.cost = 0.0  # of this process
        self._num = 0

    def pay(self, price: float) -> Callable[[], None]:
        """Note that a clip is created now; return what takes that back, where it was not. Raises Halted."""
        with self._lock:
            if self._max_cost is not None:
                before = self._others() + self.cost
                if before + price > self._max_cost + 1e-9:
                    problem = (
                        f"engine.max_cost is reached: all runs paid {before:.2f} of {self._max_cost:.2f}"
                    )
                    raise Halted(problem, "raise engine.max_cost, and run the same command again", "spent")
            self._add(price, 1)

        def take_back() -> None:
            with self._lock:
                self._add(-price, -1)

        return take_back

    def _add(self, price: float, num: int) -> None:
        self.cost, self._num = self.cost + price, self._num + num
        if self._max_cost is not None:
            self._store.write(self._path, json.dumps({"cost": self.cost, "clips": self._num}).encode())

    def _others(self) -> float:
        """Return what other processes have paid, and earlier runs."""
        total = 0.0
        for path in self._store.list(_FOLDER):
            if path != self._path:
                with suppress(FileNotFoundError):
                    value = parse_json(self._store.read(path))
                    cost = value.get("cost") if isinstance(value, dict) else None
                    total += cost if isinstance(cost, int | float) else 0.0
        return total
