"""Moments counted into bins, as wide as they have to be for any span to fit into some hundred of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

# Each divides the next, so that bins are joined and never split.
_WIDTHS_S = (1, 2, 10, 30, 60, 120, 600, 1800, 3600, 7200, 21_600, 86_400, 604_800, 6_048_000, 60_480_000)
MAX_BINS = 120  # columns of three points each
_FEW_BINS, _ROWS_EACH = 12, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """So many rows were finished in the `Timeline.width_s` seconds from `start` on."""

    start: datetime
    rows: int


class Timeline:
    """Counts moments, given as seconds since 1970."""

    def __init__(self) -> None:
        self._width = 0  # of _WIDTHS_S
        self._counts: Counter[int] = Counter()

    @property
    def width_s(self) -> int:
        return _WIDTHS_S[self._width]

    def add(self, moments: Iterable[int]) -> None:
        self._counts.update(moment // self.width_s for moment in moments)
        while self._counts and self._num_bins > MAX_BINS:
            self._widen()

    def settle(self) -> None:
        """Widen bins until they hold some rows, for a chart that is no comb."""
        while self._counts and self._num_bins > max(_FEW_BINS, self._counts.total() // _ROWS_EACH):
            self._widen()

    @property
    def _num_bins(self) -> int:
        return max(self._counts) - min(self._counts) + 1

    def bins(self) -> tuple[Bin, ...]:
        """Return all from the first to the last, empty ones too."""
        return tuple(self._bins())

    def _bins(self) -> Iterator[Bin]:
        if not self._counts:
            return
        for number in range(min(self._counts), max(self._counts) + 1):
            start = datetime.fromtimestamp(number * self.width_s, UTC)
            yield Bin(start=start, rows=self._counts[number])

    def _widen(self) -> None:
        factor = _WIDTHS_S[self._width + 1] // self.width_s
        wider: Counter[int] = Counter()
        for number, count in self._counts.items():
            wider[number // factor] += count
        self._width, self._counts = self._width + 1, wider
