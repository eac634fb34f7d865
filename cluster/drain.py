"""Wait while workers hand back what they have: not for ever, and saying what for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from framefleet.cluster.stop import Stop

TELL_EVERY_S = 5.0

log = logging.getLogger(__name__)


def wait_for_rows(
    turn: Callable[[], None], in_hand: Callable[[], Mapping[str, int]], stop: Stop, *, limit_s: float
) -> None:
    """Take turns until no worker has rows, the limit has passed, or Ctrl-C came again.

    turn: follows what happens for a moment. in_hand: how many rows each worker has that has any.
    """
    began = told = time.monotonic()
    if left := in_hand():
        log.warning(
            "workers have %.0f s to store what is done of %s rows; Ctrl-C again goes at once",
            limit_s,
            sum(left.values()),
        )
    while left and not stop.is_urgent and (now := time.monotonic()) - began < limit_s:
        if now - told >= TELL_EVERY_S:
            told = now
            waiting = ", ".join(f"{worker} ({rows})" for worker, rows in left.items())
            log.warning("waiting for rows of %s since %.0f s", waiting, now - began)
        turn()
        left = in_hand()
    if left:
        log.warning("%s rows under way are not waited for", sum(left.values()))
