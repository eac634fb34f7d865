"""How much memory decoding may take at one time, in this process and in its sandboxes together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from framefleet.pipeline.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """silence_s: without a byte. total_s: of all attempts together, as a trickle could go on for ever."""

    max_bytes: int = 256 << 20
    connect_s: float = 10.0
    silence_s: float = 20.0
    total_s: float = 300.0


class Budget:
    """Bytes, shared by all threads. What needs more than there are gets them all, and is alone."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._turn = threading.Lock()  # first come, first served: small ones do not keep a large one waiting
        self._changed = threading.Condition()

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Hold `count` bytes, once they are free."""
        count = min(count, self._total)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify()


DECODING = Budget(1 << 30)  # what an image of 67 million pixels takes; the usual ones are a hundredth of that


def too_many_bytes(max_bytes: int) -> InputError:
    return InputError(f"it is larger than {max_bytes:,} bytes", "make it smaller: cut it or compress it")
