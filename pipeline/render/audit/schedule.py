"""Which rows are audited, what was compared, and how many may be wrong if no audit found one.

No torch. Goes by row_ids and counts, so that it picks the same rows each time.
Assumes nothing about which rows are wrong. If the rows in a set W are wrong, no audit finds one with
probability prod(1 - odds of row): with weight(row) = -log(1 - odds), at most 5 % where the weights of W add
up to -log(0.05) = 3.0. So with 95 % confidence, wrong rows that no audit found weigh less than 3.0 together,
of whatever kinds they are; the most rows that do are those with the smallest odds. Where d kinds were found
wrong, chance had d hits, and 3.0 becomes the limit of a Poisson count of d: 4.7 for one, 6.3 for two.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.arguments import check_fields
from framefleet.pipeline.metrics import BUSY, WORKER_SECONDS
from framefleet.pipeline.render.fused.batching import Mode

CONFIDENCE = 0.95
EVERY = 1000  # an audit takes one or two rows' time, so 0.1 to 0.2 % of it
SHARE = 0.02  # what nobody misses; the first rows of each kind would take more of a small job
_MISSED = 1 - CONFIDENCE
_TINY = 1e-9  # of arithmetic: what should be 3 may be 2.9999999999
# Kinds with a count of their own; all others share one. Otherwise a table whose rows all have different
# shapes would double the work.
MAX_KINDS = 64
OTHER_KINDS = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Rows that were not plain calls, chosen at random, are rendered again by plain calls and compared."""

    # Each row is chosen with a probability of 1/every at least, the first of its kind (recipe, second models,
    # shape) more often; 0: no audits.
    every: int = EVERY
    # More rows are chosen where that is needed to say, if all are equal, that at most this share of all rows
    # is wrong, with 95 % confidence.
    at_most: float | None = None
    # Share of the model's time that audits may take, besides one row; None: see `limit`.
    share: float | None = None

    @property
    def limit(self) -> float | None:
        """The share of the model's time that audits may take; None: as much as `every` or `at_most` takes."""
        if self.at_most is not None:
            return None
        return SHARE if self.share is None and self.every == EVERY else self.share

    def is_on(self, mode: Mode) -> bool:
        """Whether there are audits in this mode of batching: fast mode lets rows differ."""
        return self.every > 0 and mode == "exact"

    def odds(self, num_rows: int | None = None) -> Odds:
        """Return the odds with which rows are chosen. num_rows: of the job; None: unknown."""
        if self.at_most is None:
            return Odds(lowest=1 / self.every)
        if num_rows is None:  # they hold at each row, as the last may be any
            young = 1.0 if self.at_most >= CONFIDENCE else _limit(0) / _weight(self.at_most)
            return Odds(lowest=1 / self.every, young=young)
        num_wrong = math.floor(self.at_most * num_rows + _TINY)  # at most, if audits find nothing
        return Odds(lowest=max(1 / self.every, float(1 - _MISSED ** (1 / (num_wrong + 1)))))

    def __post_init__(self) -> None:
        check_fields(self)
        if self.every < 0:
            raise JobError(f"audit every is {self.every}", "use 1 or more, or 0 for no audits")
        if self.share is not None and not 0 < self.share <= 1:
            raise JobError(
                f"audit share is {self.share:g}",
                "use a share of the model's time, above 0 and up to 1, e.g. 0.02; `every: 0` for none",
            )
        if self.at_most is None:
            return
        if not 0 < self.at_most <= 1:
            raise JobError(
                f"audit at_most is {self.at_most:g}", "use a share of rows, above 0 and up to 1, e.g. 0.01"
            )
        if not self.every:
            raise JobError(
                "audit at_most is set, and audit every is 0, which turns audits off",
                "leave out one of the two",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """Row n of its kind is audited with probability max(lowest, young / n), at most 1; lowest is above 0."""

    lowest: float
    young: float = 1.0

    def of(self, number: int) -> float:
        return min(1.0, max(self.lowest, self.young / number))

    def expected(self, num_rows: int) -> float:
        """Return how many of this many rows of one kind are audited, on average."""
        sure, young = min(num_rows, int(self.young)), min(num_rows, self._num_young)
        return sure + self.young * (_harmonic(young) - _harmonic(sure)) + (num_rows - young) * self.lowest

    def most_wrong(self, counts: Collection[int], *, num_differing: int = 0) -> int:
        """Return how many rows are wrong at most, with 95 % confidence, if no audit of these kinds found one.

        counts: rows of each kind. num_differing: other kinds of the same job, which audits found wrong.
        """
        limit, weight = _limit(num_differing), _weight(self.lowest)
        num_old = sum(max(0, count - self._num_young) for count in counts)
        if num_old and num_old * weight >= limit:
            return _below(limit / weight)
        young = [min(count, self._num_young) for count in counts if count > int(self.young)]
        left = limit - num_old * weight if num_old else limit
        return num_old + self._most_young(young, left)

    def most_off(self, num_rows: int, *, num_off: int) -> int:
        """Return how many of these rows are off at most, with 95 % confidence, if num_off were found to be.

        Each row was compared with the lowest of the odds. The bound is the largest number of rows
        that leads to num_off findings or fewer in more than 5 % of cases: `most_wrong`, for any findings.
        """
        from scipy.special import bdtr  # takes a quarter of a second to import

        more = range(num_off, num_rows + 1)
        is_refuted = bisect_left(more, True, key=lambda number: bdtr(num_off, number, self.lowest) <= _MISSED)
        return num_off + is_refuted - 1

    @property
    def _num_young(self) -> int:
        """How many rows of a kind have better odds than the lowest."""
        return int(self.young / self.lowest + _TINY)

    def _most_young(self, counts: list[int], left: float) -> int:
        """Return the same for young rows, as if they could be divided endlessly, which makes it no less.

        Of row n the weight is at least young * log(n / (n - 1)), so that rows from a on, up to b, weigh
        young * log(b / a). The first rows, which are sure to be audited, are not wrong.
        """

        def weight(first: float) -> float:
            return self.young * sum(math.log(count / first) for count in counts if count > first)

        low, high = float(int(self.young)), float(max(counts, default=0))
        if weight(low) < left:  # all of them may be wrong
            return sum(counts) - int(low) * len(counts)
        for _ in range(60):  # halving: as exact as floats are
            middle = (low + high) / 2
            low, high = (low, middle) if weight(middle) < left else (middle, high)
        return _below(sum(count - high for count in counts if count > high))


def _weight(odds: float) -> float:
    return math.inf if odds >= 1 else -math.log1p(-odds)


def _below(rows: float) -> int:
    return max(0, math.ceil(rows - _TINY) - 1)


def _limit(num_hits: int) -> float:
    """Return the mean at which a Poisson count is this or less in 5 % of cases."""
    if num_hits == 0:  # nearly always, and without what takes a quarter of a second to import
        return -math.log(_MISSED)
    from scipy.special import pdtri

    return float(pdtri(num_hits, _MISSED))


def _harmonic(count: int) -> float:
    if count < 100:
        return sum(1 / number for number in range(1, count + 1))
    return math.log(count) + 0.5772156649 + 1 / (2 * count)


class AuditSchedule:
    """Picks rows at random, more often while a kind is young, each with at least the lowest of the odds."""

    def __init__(self, odds: Odds | None) -> None:
        self._odds = odds  # None: no row is audited
        self._kinds: set[str] = set()  # that are counted each for itself
        self._rows: Counter[str] = Counter()
        self._passed: Counter[str] = Counter()
        self._owed: Counter[str] = Counter()
        # Kinds whose rows are plain calls now, or cannot be judged: none is due or counted any more.
        self.settled: set[str] = set()
        self._blind: set[str] = set()

    def is_due(self, kind: str, row_id: str) -> bool:
        """Count a row; tell whether it is to be audited."""
        if self._odds is None or kind in self.settled:
            return False
        counted = self._counted(kind)
        self._rows[counted] += 1
        return lot_of(row_id) < self._odds.of(self._rows[counted])

    def pass_over(self, kind: str) -> None:
        """Count a row that audits had no time left for: it may be wrong."""
        if self._odds is not None and kind not in self.settled:
            self._passed[self._counted(kind)] += 1

    def owe(self, kind: str) -> None:
        """A row that was due could not be audited, e.g. because it was a plain call: audit another one."""
        self._owed[self._counted(kind)] += 1

    def pays(self, kind: str) -> bool:
        """Tell whether a row is due in place of another, once."""
        counted = self._counted(kind)
        is_owed = self._owed[counted] > 0 and kind not in self.settled
        self._owed[counted] -= is_owed
        return is_owed

    def miss(self, kind: str) -> None:
        """A row was due, was not a plain call, and was not compared: nothing is known of its kind."""
        self._blind.add(self._counted(kind))

    def most_wrong(self, *, num_differing: int) -> int:
        """Return how many of the counted rows are wrong at most, see `Odds.most_wrong`."""
        if self._odds is None:
            return 0
        rows = {kind: count for kind, count in self._rows.items() if kind not in self.settled}
        unknown = sum(count for kind, count in rows.items() if kind in self._blind)
        unknown += sum(count for kind, count in self._passed.items() if kind not in self.settled)
        counts = [count for kind, count in rows.items() if kind not in self._blind]
        return unknown + self._odds.most_wrong(counts, num_differing=num_differing)

    def _counted(self, kind: str) -> str:
        if kind not in self._kinds and len(self._kinds) >= MAX_KINDS:
            return OTHER_KINDS
        self._kinds.add(kind)
        return kind


def lot_of(row_id: str) -> float:
    """Return the number from 0 to 1 that a row drew: the same in every run, whatever the row is."""
    return int.from_bytes(hashlib.sha256(f"audit {row_id}".encode()).digest()[:8]) / 2**64


MOST_KINDS = 1000  # that are counted: a table may have a shape for each row


def size_class(batch_size: float) -> int:
    """Return 0 for forwards of one row, 1 for up to 2 rows, 2 for up to 4, 3 for up to 8, ..."""
    return max(0, math.ceil(math.log2(max(batch_size, 1.0) - 1e-6)))  # it is a mean, of floats


class AuditedKinds:
    """The sizes of forwards that rows of each kind had, and those at which they were compared."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._compared: dict[str, int] = {}

    def saw(self, kind: str, batch_size: float) -> bool:
        """Note a row that may differ; tell whether no row in forwards as large was compared or seen."""
        size = size_class(batch_size)
        before = self._sizes.get(kind, -1)
        if before >= 0 or len(self._sizes) < MOST_KINDS:
            self._sizes[kind] = max(size, before)
        return kind in self._compared and size > max(before, self._compared[kind])

    def compared(self, kind: str, batch_size: float) -> None:
        if kind in self._compared or len(self._compared) < MOST_KINDS:
            self._compared[kind] = max(size_class(batch_size), self._compared.get(kind, 0))

    def rank(self, kind: str, num_rows: int) -> tuple[int, bool, bool]:
        """Return how much it would say to compare a row of a kind: the one with the most rows says most.

        Of equals, one that is batched, then one in forwards of a new size. num_rows: of the job.
        """
        size, compared_size = self._sizes.get(kind, 0), self._compared.get(kind)
        return num_rows, size > 0, compared_size is None or size > compared_size

    def outcomes(self) -> dict[str, bool]:
        """Return whether a row was compared, by kind; of at most `MOST_KINDS` with rows that may differ."""
        kinds = [*self._compared, *(kind for kind in self._sizes if kind not in self._compared)]
        return {kind: kind in self._compared for kind in kinds[:MOST_KINDS]}


class OneAudit:
    """Chooses the one row of a small job that is compared: any of the most informative kind, by its lot."""

    def __init__(self, kinds: AuditedKinds) -> None:
        self._kinds = kinds
        self._lots: dict[str, dict[str, float]] = {}  # of rows to come, by kind and row_id
        self._num_rows: dict[str, int] = {}  # by kind

    def add(self, row_id: str, kind: str) -> None:
        self._lots.setdefault(kind, {})[row_id] = lot_of(row_id)
        self._num_rows[kind] = self._num_rows.get(kind, 0) + 1

    def is_next(self, row_id: str, kind: str) -> bool:
        """Tell whether a row that is leased now is the one to audit, of all that were to come."""
        lots = {kind: lots for kind, lots in self._lots.items() if lots}
        ranks = {kind: self._kinds.rank(kind, self._num_rows[kind]) for kind in lots}
        is_chosen = ranks and kind == max(ranks, key=ranks.__getitem__)
        is_next = bool(is_chosen) and row_id == min(lots[kind], key=lots[kind].__getitem__)
        self._lots.get(kind, {}).pop(row_id, None)
        return is_next


MOST_SMALL = 1000  # all of these are in memory, to choose one


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeTime:
    """Seconds in which models computed, of all workers and runs of a job."""

    rows_s: float = 0.0  # all but audits
    audits_s: float = 0.0

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> ComputeTime:
        """Return the sums of workers' figures, see `pipeline/metrics.py`."""
        seconds = {cause: WORKER_SECONDS.of(figures, cause) for cause in BUSY}
        audits_s = seconds.pop("audit")
        return cls(rows_s=sum(seconds.values()), audits_s=audits_s)

    def __add__(self, other: ComputeTime) -> ComputeTime:
        return ComputeTime(rows_s=self.rows_s + other.rows_s, audits_s=self.audits_s + other.audits_s)

    def __sub__(self, other: ComputeTime) -> ComputeTime:
        return ComputeTime(rows_s=self.rows_s - other.rows_s, audits_s=self.audits_s - other.audits_s)


def is_affordable(
    share: float, time: ComputeTime, *, num_open: int = 0, longest_s: float | None = None
) -> bool:
    """Tell whether one more row may be audited: audits so far, and those ordered, stay within this share.

    So all audits together take at most the share, and one row. num_open: audits that were ordered and have
    not ended; each counts as the longest so far, and while there is none, the first is waited for.
    """
    if num_open and longest_s is None:
        return False
    return time.audits_s + num_open * (longest_s or 0.0) <= share * time.rows_s


def is_small(share: float, num_rows: int) -> bool:
    """Tell whether the share of a whole job is less than one row, which is all that it then gets."""
    return share * num_rows < 1 and num_rows <= MOST_SMALL
