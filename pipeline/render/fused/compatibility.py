"""Which calls may share a forward, and along which axes they are joined: learned from the calls themselves.

Tensors carry their rows along the first dimension where that is as long as the row's batch, until a forward
that was joined so gives something else: then other dimensions of that length are tried, copies of what is one
for the row's whole batch (Stable Audio's time besides two prompts), and sharing what is equal in all rows.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from framefleet.pipeline.render.fused.calls import EACH, LIST, Axes, Call, are_unlike, fingerprint, masks_of
from framefleet.pipeline.render.fused.pins import Trace, Traces, look_inside

# Prompts have some hundred lengths, and pairs of them with negative ones; a forgotten one is looked at again.
_REMEMBERED = 4096
# Other ways to join that are tried, once for calls that look alike; each costs a forward.
_TRIES = 12


class _Shared(NamedTuple):
    """What decides, besides its own shape, which bits a call with lists gets from a shared forward."""

    # Whether others have other shapes: among rows of one length a network may need no mask.
    is_mixed: bool
    # What goes row by row, in the strides of the rows that these were seen with.
    pins: frozenset[tuple[str, tuple[Trace, ...]]]


class Company:
    """What was learned about the calls of one worker."""

    def __init__(self) -> None:
        self._looks: OrderedDict[Hashable, Hashable] = OrderedDict()  # by the shapes of calls with lists
        self._proven: dict[Hashable, set[_Shared]] = {}  # by the shape of such a call: where it kept its bits
        self._masks: dict[Hashable, tuple[int, ...]] = {}  # by shape
        self._axes: dict[Hashable, Axes] = {}  # by look, where they are not the usual ones
        self._supposed: dict[Hashable, dict[int, int]] = {}  # by look: axes by leaf that were not tried yet
        self._refuted: set[tuple[Hashable, int, int]] = set()  # (look, leaf, axis)

    def look(self, call: Call) -> Hashable | None:
        """Return what calls that may share a forward have in common; None until `saw` had such a call."""
        if call.has_lists and call.batch:
            return self._looks.get(call.shape)
        prints = tuple([fingerprint(call.leaves[place]) for place in self.masks(call)])
        return (call.shape, prints) if prints else call.shape

    def masks(self, call: Call) -> tuple[int, ...]:
        """Return the leaves by which a network cuts texts: rows that share must have them equal."""
        return self._masks.get(call.shape, ())

    def share_by_masks(self, call: Call, *, is_needed: Callable[[], bool]) -> bool:
        """From now on, such calls share only with those of equal masks, if needed; return if that is new."""
        if call.has_lists or call.shape in self._masks:
            return False
        self._masks[call.shape] = masks_of(call) if is_needed() else ()
        return bool(self._masks[call.shape])

    def saw(self, call: Call, traces: Traces) -> None:
        """Learn what a forward of this call alone looks like inside."""
        digest = hashlib.sha256(repr((call.batch, call.structure, look_inside(traces))).encode())
        self._learn(call, (call.module, digest.digest()))

    def is_proven(self, calls: Sequence[Call], pins: Traces) -> bool:
        """Whether each of them has shared such a forward before, and kept its bits."""
        if not calls[0].has_lists:
            return True
        company = _company_of(calls, pins)
        return all(company in self._proven.get(call.shape, ()) for call in calls)

    def prove(self, calls: Sequence[Call], pins: Traces) -> None:
        """These calls shared a forward and kept their bits."""
        company = _company_of(calls, pins)
        for call in calls if calls[0].has_lists else ():
            self._proven.setdefault(call.shape, set()).add(company)

    def part_ways(self, calls: Sequence[Call]) -> bool:
        """From now on, those not proven share only with calls of their very shape; return if that is new."""
        if not are_unlike(calls):
            return False
        parted = [call for call in calls if not any(how.is_mixed for how in self._proven.get(call.shape, ()))]
        for call in parted:
            self._learn(call, call.shape)
        return bool(parted)

    def groups(self, calls: Sequence[Call]) -> list[list[int]]:
        """Return the places of the calls that may share a forward."""
        looks: dict[Hashable, list[int]] = {}
        for place, call in enumerate(calls):
            look = (self.look(call) or call.shape) if call.batch else place
            looks.setdefault(look, []).append(place)
        groups: list[list[int]] = []
        for places in looks.values():
            groups += [places] if len(places) == 1 else self._with_equal_tables(calls, places)
        return groups

    def axes(self, call: Call) -> Axes:
        return self._axes.get(self.look(call)) or call.axes

    def ways(self, calls: Sequence[Call]) -> Iterator[Axes]:
        """Yield axes to join by: those that are known, and then others, each with one leaf changed."""
        axes = self.axes(calls[0])
        yield axes
        others = []
        for leaf, column in enumerate(zip(*(call.leaves for call in calls), strict=True)):
            others += [(leaf, axis) for axis in _ways_of(column, calls[0].batch) if axis != axes[leaf]]
        for leaf, axis in others[:_TRIES]:
            yield _changed(axes, leaf, axis)

    def join_by(self, call: Call, axes: Axes) -> None:
        """From now on, join such calls along these axes, which were seen to be right."""
        look = self.look(call)
        self._supposed.pop(look, None)
        if axes != self.axes(call):
            self._axes[look] = axes

    def refute(self, call: Call) -> bool:
        """Take back what was only assumed of such calls; return whether there was anything."""
        look = self.look(call)
        supposed = self._supposed.pop(look, {})
        self._refuted.update((look, leaf, axis) for leaf, axis in supposed.items())
        for leaf in supposed:
            self._axes[look] = _changed(self._axes[look], leaf, None)
        return bool(supposed)

    def _with_equal_tables(self, calls: Sequence[Call], places: list[int]) -> list[list[int]]:
        """Split calls of one look by what is shared among rows that have it equal."""
        first = calls[places[0]]
        axes, look = self.axes(first), self.look(first)
        with_tensors = [isinstance(leaf, Tensor | list | tuple) for leaf in first.leaves]
        shared = [leaf for leaf, axis in enumerate(axes) if axis is None and with_tensors[leaf]]
        if not shared:
            return [places]
        prints = [[fingerprint(calls[place].leaves[leaf]) for leaf in shared] for place in places]
        for leaf, column in zip(shared, zip(*prints, strict=True), strict=True):
            options = _ways_of((first.leaves[leaf],), first.batch) if len(set(column)) > 1 else []
            untried = (a for a in options if a is not None and (look, leaf, a) not in self._refuted)
            if (axis := next(untried, None)) is not None:
                self._axes[look] = _changed(axes, leaf, axis)  # it may carry the rows
                self._supposed.setdefault(look, {})[leaf] = axis
                return self._with_equal_tables(calls, places)
        groups: dict[Hashable, list[int]] = {}
        for place, own in zip(places, prints, strict=True):
            groups.setdefault(tuple(own), []).append(place)
        return list(groups.values())

    def _learn(self, call: Call, look: Hashable) -> None:
        self._looks[call.shape] = look
        if len(self._looks) > _REMEMBERED:
            self._proven.pop(self._looks.popitem(last=False)[0], None)


def _company_of(calls: Sequence[Call], pins: Traces) -> _Shared:
    return _Shared(are_unlike(calls), frozenset((name, tuple(places)) for name, places in pins.items()))


def _ways_of(column: tuple[Any, ...], batch: int) -> list[int | None]:
    """Return how one leaf may be joined, the likeliest first."""
    first = column[0]
    if isinstance(first, Tensor) and first.dim():
        options: list[int | None] = [axis for axis, size in enumerate(first.shape) if size == batch]
        options += [EACH] if first.shape[0] == 1 < batch else []
    elif isinstance(first, list | tuple):
        options = [LIST]
    else:
        return []
    return [*options, None] if len({fingerprint(leaf) for leaf in column}) == 1 else options


def _changed(axes: Axes, leaf: int, axis: int | None) -> Axes:
    return (*axes[:leaf], axis, *axes[leaf + 1 :])
