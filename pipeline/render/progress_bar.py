"""How far the rows of one process are, as a bar on a terminal or in a notebook."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sized

from tqdm.auto import tqdm

_EVERY_S = 0.5  # forwards may take milliseconds, and a terminal to redraw as long


class ProgressBar:
    """Counts rows that ended; between two of them, forwards, so that a long clip shows progress too."""

    def __init__(self, requests: Iterable[object], wanted: bool | None) -> None:
        """wanted: None means if stderr is a terminal."""
        total = len(requests) if isinstance(requests, Sized) else None
        self._bar = tqdm(total=total, unit="row", disable=None if wanted is None else not wanted)
        self._num_forwards = 0
        self._shown_at = 0.0

    def show(self, *, num_ended: int, num_active: int) -> None:
        """Show one step of the renderer: rows that ended, or else a forward of those under way."""
        self._num_forwards += not num_ended
        now = time.monotonic()
        if num_ended or now - self._shown_at > _EVERY_S:
            self._shown_at = now
            self._bar.set_postfix_str(f"{num_active} under way, {self._num_forwards} forwards", refresh=False)
            self._bar.update(num_ended)
            self._bar.refresh()

    def close(self) -> None:
        self._bar.close()
