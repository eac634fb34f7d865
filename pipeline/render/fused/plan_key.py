"""Which calls are run by one plan."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from framefleet.pipeline.render.fused.calls import Axes, Call, adapters_of


class Kind(NamedTuple):
    """What calls have in common with others that are run by one plan.

    Rows of LoRAs are proven for themselves, by which there are and which of them differ between rows: a
    layer whose rows are elsewhere than outermost shows only where rows differ in what it has.
    """

    look: Hashable
    axes: Axes
    rows: int
    loras: frozenset[str]
    differing: frozenset[str]


def plan_kind(calls: Sequence[Call], look: Hashable, axes: Axes, *, by_weights: bool = False) -> Kind:
    """Return that of calls that look alike. by_weights: all have equal ones, and weights count."""
    if by_weights:
        names = frozenset(f"{name}:{weight}" for name, weight in calls[0].adapters.in_force)
        return Kind(look, axes, len(calls), names, frozenset())
    pairs = [set(adapters.in_force) for adapters in adapters_of(calls)]
    used = pairs[0].union(*pairs)
    differing = frozenset(name for name, _ in used - pairs[0].intersection(*pairs))
    return Kind(look, axes, len(calls), frozenset(name for name, _ in used), differing)


def by_loras(calls: Sequence[Call], places: Sequence[int]) -> list[list[int]]:
    """Part calls, by their places, into those of equal LoRAs."""
    found: dict[Hashable, list[int]] = {}
    for place in places:
        found.setdefault(calls[place].adapters.in_force, []).append(place)
    return list(found.values())
