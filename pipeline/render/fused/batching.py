"""What a job says about rows that share forwards, and how many rows the next one takes. Imports no torch."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal, get_args

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.arguments import check_fields

Mode = Literal["exact", "fast"]
# Climbed by powers of two; a size between two of them is tried only where the larger does not fit, or did not
# pay. So few sizes have to be probed, and yet at most a third of a group waits.
LADDER = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
# Below 5 % more rows per second a larger forward is not worth its memory, nor the probe its time.
MIN_GAIN = 1.05
# One refusal may be a noisy measurement, one size whose bits differ, or a kernel that gains nothing with two
# rows and doubles the rate with four; two in a row end the climb.
MISSES = 2
# A forward of a second leaves no part of a machine idle that four rows would fill and two do not, and to ask
# costs seconds: one refusal ends the climb.
LARGE_S = 1.0
# A machine that was busy for a moment must not cost the whole job, so slow sizes are tried again, each time
# after twice as many forwards: one trial takes about as long as ten.
RETRY_AFTER = 256
# What a trial of n rows costs, in forwards of one row: (a, b) of a + b * n. A small Wan on a CPU took 11, 13,
# 20 and 35 to prove 2, 4, 8 and 16 rows exact; if fast 1.4, 1.8, 2.5 and 3.8, and its decoder 1.6 for two.
TRIAL_COST: dict[Mode, tuple[float, float]] = {"exact": (8.0, 1.7), "fast": (1.0, 0.3)}
# How many times longer than its trial takes rows must have missed a size before it is tried, where it gains
# little: sizes between powers of two, which are wanted as the last rows of a job end, and what comes once in
# a row, such as decoding. A short job would not earn these trials. Powers of two are tried at once, as they
# about halve the time of all later forwards.
PATIENCE = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How rows share forwards."""

    mode: Mode = "exact"  # which changes no bit of any row; "fast" lets rows round differently in a batch
    max_rows: int = 8  # in one forward
    # How many times the rows per second of the next smaller size make a size worth using; 0: every size is.
    min_gain: float = MIN_GAIN
    remember: bool = True  # what is measured of sizes, beyond the process; see docs/exactness.md

    def __post_init__(self) -> None:
        check_fields(self)
        if self.mode not in get_args(Mode):
            raise JobError(f"batching mode is {self.mode!r}", f"use one of {', '.join(get_args(Mode))}")
        if self.max_rows < 1:
            raise JobError(f"batching max_rows is {self.max_rows}", "use 1 or more")


class Sizes:
    """The sizes that one shape of forward may use.

    A forward of each size shows whether it seems to pay. Where a size has to be proven, which takes as long
    as dozens of forwards, that is done for the largest of these; smaller ones follow as they are wanted.
    """

    def __init__(
        self,
        max_rows: int,
        *,
        min_gain: float = MIN_GAIN,  # see `Batching`
        trial_cost: tuple[float, float] = (0.0, 0.0),  # as `TRIAL_COST`
        is_rare: bool = False,  # once in a row, see `PATIENCE`
    ) -> None:
        self._ladder = sorted({size for size in LADDER if size < max_rows} | ({max_rows} - {1}))
        self._rates: dict[int, float] = {}  # rows per second of the sizes that pay
        self._hopes: dict[int, float] = {}  # the same of those that seem to, and have yet to be proven
        self._num_unproven = 0  # that seemed to pay, one after another, and could not be used
        self._refused_until: dict[int, float] = {}  # number of forwards
        self._retry_after: dict[int, int] = {}  # forwards to wait after the next refusal
        self._num_forwards = 0
        self._cap = max_rows
        self._min_gain, self._trial_cost, self._is_rare = min_gain, trial_cost, is_rare
        self._missed: defaultdict[int, float] = defaultdict(float)  # for how many forwards of one row

    def next(self, waiting: int) -> int:
        """Return the largest size for `waiting` rows that pays, or the next one worth trying."""
        paying, untried = self._choice(waiting)
        return untried if untried and self._is_due(untried) else paying

    def take(self, waiting: int) -> int:
        """Return the same, for a forward that is made now."""
        paying, untried = self._choice(waiting)
        if untried and not self._is_due(untried):
            alone = self._rates.get(1)  # not timed here where another process found the sizes
            self._missed[untried] += paying * alone / self._rates[paying] if alone else 1
            return paying
        return untried or paying

    def _choice(self, waiting: int) -> tuple[int, int | None]:
        """Return the largest size for `waiting` rows that pays, and the next one to try, if there is one."""
        fitting = [size for size in self._ladder if size <= min(waiting, self._cap)]
        if not self._min_gain:  # nothing to find out on the way up
            return max((size for size in fitting if not self._is_refused(size)), default=1), None
        paying = max((size for size in fitting if size in self._rates), default=1)
        hoped, misses = None, 0
        enough = 1 if 1 / self._rates.get(1, math.inf) >= LARGE_S else MISSES
        for size in (size for size in fitting if size.bit_count() == 1 or size == fitting[-1]):
            if size <= paying:
                continue
            if misses == enough:
                break
            if self._is_refused(size):
                misses += 1
            elif size in self._hopes:
                hoped, misses = size, 0
            elif size.bit_count() == 1 or not hoped:
                return paying, size
        if hoped and self._num_unproven < MISSES:
            return paying, hoped
        between = next((size for size in fitting if size > paying), None)
        is_out = between is None or between in self._hopes or self._is_refused(between)
        return paying, None if is_out else between

    def _is_due(self, size: int) -> bool:
        """Whether a trial of this size would have been worth it by now."""
        if size in self._rates or (size.bit_count() == 1 and not self._is_rare):
            return True
        base, per_row = self._trial_cost
        return self._missed[size] >= PATIENCE * (base + per_row * size)

    def num_going_on(self, waiting: int) -> int:
        """Return how many of these rows continue now: all once a size pays, else those of the next trial.

        Rows that took turns would all be late, and all be lost in a crash.
        """
        return waiting if not self._min_gain or len(self._rates) > 1 else self.next(waiting)

    def is_tried(self, size: int) -> bool:
        return size == 1 or size in self._rates

    def is_new(self, size: int) -> bool:
        """Whether it is to be seen first what this size gives, before it is proven."""
        return self._min_gain > 0 and size not in self._rates and size not in self._hopes

    def hope_for(self, size: int, *, seconds: float) -> bool:
        """This size seems to pay. Return whether to prove it now, as no larger one is to be seen first."""
        self._hopes[size] = size / seconds
        return self._choice(self._cap)[1] == size

    def best_below(self, size: int) -> tuple[int, float]:
        """Return the smaller size of most rows per second, and its seconds."""
        rates = self._below(size)
        best = max(rates, key=rates.__getitem__)
        return best, best / rates[best]

    def pays(self, size: int, *, seconds: float) -> bool:
        """Whether `size` rows in `seconds` beat every smaller size by enough."""
        return size / seconds > self._min_gain * max(self._below(size).values(), default=0.0)

    def _below(self, size: int) -> dict[int, float]:
        """Return the rates of smaller sizes: as this one's, of proven ones or of what was seen first."""
        rates = self._rates | self._hopes if self.is_new(size) else self._rates
        return {other: rate for other, rate in rates.items() if other < size}

    def accept(self, size: int, *, seconds: float) -> None:
        self._rates[size] = size / seconds
        self._hopes.pop(size, None)
        if size > 1:
            self._num_unproven = 0
            smaller = (other for other in self._ladder if other < size and other.bit_count() == 1)
            self._hopes |= {other: 0.0 for other in smaller if other not in self._rates | self._hopes}

    def refuse(self, size: int, *, is_final: bool) -> None:
        """Do not use this size: never again if its bits differ, or not soon if it does not pay."""
        self._num_unproven += self._hopes.pop(size, None) is not None
        wait = self._retry_after.get(size, RETRY_AFTER)
        self._retry_after[size] = 2 * wait
        self._refused_until[size] = math.inf if is_final else self._num_forwards + wait

    def count_forward(self) -> None:
        self._num_forwards += 1

    def halve(self, size: int) -> None:
        """Memory ran out at `size`: stay at or below half of it from now on."""
        self._cap = min(self._cap, max(1, size // 2))

    def _is_refused(self, size: int) -> bool:
        return self._num_forwards < self._refused_until.get(size, 0)
