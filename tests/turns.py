"""Code that takes turns with other code, each with global generators of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from framefleet.pipeline.hooks.global_draws import GlobalDraws


def drawn_in_turns(drawn: Callable[[], Any]) -> list[list[Any]]:
    """Return what three draw in three turns each, seeded with 0, 1 and 2."""
    turns, found = [GlobalDraws() for _ in range(3)], [[], [], []]
    for seed, draws in enumerate(turns):
        with draws.turn():
            draws.seed(seed)
    for _ in range(3):
        for draws, mine in zip(turns, found, strict=True):
            with draws.turn():
                mine.append(drawn())
    return found
