"""How long a forward takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

# A forward shorter than this is timed twice: the first one of a size may also prepare kernels.
SHORT_S = 0.1
# One that seems not to pay is timed again so often, in turns with the size that it has to beat: what that one
# took in a calm moment is no measure in a busy one. Of a longer forward as often as this time allows.
TURNS = 3
TURNS_S = 1.0


def best(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the lesser of two timings, or the only one of a long forward."""
    result, seconds = clocked(function)
    return result, min(seconds, clocked(function)[1]) if seconds < SHORT_S else seconds


def clocked(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the seconds that it took."""
    # On a CPU the thread's own time: what other processes take away says nothing about the forward.
    clock = time.perf_counter if torch.cuda.is_available() else time.thread_time
    _synchronize()
    started = clock()
    result = function()
    _synchronize()
    return result, clock() - started


def in_turns(few: Callable[[], Any], many: Callable[[], Any], seconds: float) -> float:
    """Return how much longer `few` takes than `many`, which takes some seconds."""
    turns = [(clocked(few)[1], clocked(many)[1]) for _ in range(min(TURNS, int(TURNS_S / seconds)))]
    return min(first for first, _ in turns) / min(second for _, second in turns)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
