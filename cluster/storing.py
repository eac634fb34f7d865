"""Which workers store rows, and which cannot while others do: then it is their machine, and not the store."""

from __future__ import annotations

# A store that restarts is out of reach for everybody, and those that come back first are some seconds ahead.
CUT_OFF_S = 60.0


class Storing:
    """Takes `now` from its caller."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}  # by worker: when it was heard to have stored a row

    def stored(self, worker: str, *, now: float) -> None:
        self._last[worker] = now

    def is_cut_off(self, worker: str, *, silent_s: float, now: float) -> bool:
        """Tell whether the store is silent to this worker alone. silent_s: for how long."""
        if silent_s < CUT_OFF_S:
            return False
        began = now - silent_s
        return any(at > began + CUT_OFF_S / 2 for other, at in self._last.items() if other != worker)
