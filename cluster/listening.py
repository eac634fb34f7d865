"""How long this process has listened, in seconds. A process that was stopped, or busy elsewhere, did not."""

from __future__ import annotations


class Listening:
    """A clock that goes on only while it is looked at often enough. now: any steadily growing seconds."""

    def __init__(self, now: float) -> None:
        self.seconds = 0.0
        self._last = now

    def tick(self, now: float, *, at_most: float) -> float:
        """Count what passed since the last tick, but at most so much; return all that was counted."""
        self.seconds += min(now - self._last, at_most)
        self._last = now
        return self.seconds
