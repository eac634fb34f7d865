"""Decide which clips of a group are accepted, in the order of their seeds, and how many more to render.

A clip is accepted if it passes, fewer than `wanted` clips before it do, and all clips before it are judged.
So acceptance never depends on which clips were rendered first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from framefleet.api.commands import Overview
from framefleet.api.errors import JobError, count_text
from framefleet.api.outputs import Output, Store, read_json
from framefleet.api.texts import canonical_json

UNRENDERED, UNJUDGED, REJECTED, PASSED = range(4)  # outcomes of a clip
_FIRST = (REJECTED, UNRENDERED, UNJUDGED, PASSED)  # for clips accepted together, the first of these counts
_FILE = "until.json"  # of an output
_MAX_SHOWN = 20  # groups
# Number of clips of all groups that count in the rate of one group, which is not known at first.
_CLIPS_OF_ALL = 4


@dataclass(slots=True, kw_only=True)
class Group:
    """Clips with the same values in some columns."""

    values: Mapping[str, str]  # of the columns that define the group
    wanted: int
    at_most: int
    outcomes: bytearray = field(default_factory=bytearray)  # of the clips asked for, in order

    @property
    def num_pending(self) -> int:
        return self.outcomes.count(UNRENDERED)

    @property
    def num_open(self) -> int:
        return self.num_pending + self.outcomes.count(UNJUDGED)

    @property
    def num_passed(self) -> int:
        return self.outcomes.count(PASSED)

    @property
    def num_judged(self) -> int:
        return len(self.outcomes) - self.num_open

    @property
    def num_needed(self) -> int:
        return max(0, self.wanted - self.num_passed)

    @property
    def room(self) -> int:
        return self.at_most - len(self.outcomes)

    def marks(self) -> list[tuple[bool, bool] | None]:
        """Return (accepted, surplus) for each clip; None while this is not known."""
        marks: list[tuple[bool, bool] | None] = []
        num_accepted, is_known = 0, True
        for outcome in self.outcomes:
            is_full = num_accepted == self.wanted
            is_known &= is_full or outcome in (REJECTED, PASSED)
            is_accepted = is_known and not is_full and outcome == PASSED
            num_accepted += is_accepted
            marks.append((is_accepted, is_full) if is_known else None)
        return marks

    def state(self) -> GroupState:
        marks = self.marks()
        return GroupState(
            values=dict(self.values),
            wanted=self.wanted,
            accepted=sum(mark is not None and mark[0] for mark in marks),
            at_most=self.at_most,
            num_asked=len(self.outcomes),
            num_pending=self.num_pending,
            num_unjudged=self.outcomes.count(UNJUDGED),
            num_passed=self.num_passed,
            num_surplus=sum(
                mark is not None and mark[1] and outcome != UNRENDERED
                for outcome, mark in zip(self.outcomes, marks, strict=True)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupState:
    """The progress of a group."""

    values: dict[str, str]  # of the columns that define it
    wanted: int
    accepted: int
    at_most: int
    num_asked: int  # clips, rendered or not
    num_pending: int  # not rendered yet
    num_unjudged: int  # rendered, but the condition is null
    num_passed: int
    num_surplus: int  # rendered after the last one that was needed

    @property
    def num_rendered(self) -> int:
        return self.num_asked - self.num_pending

    @property
    def is_short(self) -> bool:
        return self.accepted < self.wanted

    @property
    def rate(self) -> float | None:
        """Share of the judged clips that pass."""
        num_judged = self.num_rendered - self.num_unjudged
        return self.num_passed / num_judged if num_judged else None

    def __str__(self) -> str:
        name = ", ".join(f"{column}={value}" for column, value in self.values.items()) or "all rows"
        text = f"{name}: {self.accepted:,} of {self.wanted:,} accepted, "
        text += f"{self.num_rendered:,} of at most {self.at_most:,} rendered"
        text += "" if self.rate is None else f", {self.rate:.1%} pass"
        if self.num_unjudged:
            text += f"; {self.num_unjudged:,} not judged: run `framefleet score` with the scores of "
            text += "until.where, or `framefleet judge` for answers, then `render` again"
        elif self.is_short and self.num_asked == self.at_most and not self.num_pending:
            text += ": raise until.at_most, or change until.where or the rows"
        return text


def outcome_of(outcomes: Collection[int]) -> int:
    """Return the outcome of clips that are accepted together."""
    return next(outcome for outcome in _FIRST if outcome in outcomes)


def pass_rate(groups: Iterable[Group], stated: float | None) -> float:
    """Return the share of clips that pass, counting one more clip with the `stated` rate (None: 1)."""
    passed = judged = 0
    for group in groups:
        passed, judged = passed + group.num_passed, judged + group.num_judged
    return (passed + (stated or 1.0)) / (judged + 1)


def rows_to_ask(groups: Sequence[Group], num_rows: int, stated: float | None) -> dict[int, int]:
    """Return how many more clips to render, by the place of their group.

    All that are certainly needed and, if these are fewer than num_rows, those that are most probably needed.
    Two clips that wait for a judge count as one of these, since the judge is not faster when more wait.
    """
    rate, numbers, likely = pass_rate(groups, stated), dict[int, int](), list[tuple[float, int]]()
    rates, opens = [rate] * len(groups), [0] * len(groups)

    def odds(at: int) -> float:
        """How many standard deviations the expected passes of open clips miss those needed; median 0."""
        expected = opens[at] * rates[at]
        return (groups[at].num_needed - 1 / 3 - expected) / math.sqrt(expected * (1 - rates[at]) + 1e-9)

    for at, group in enumerate(groups):
        if not group.num_needed or group.room <= 0:
            continue
        rates[at] = (group.num_passed + _CLIPS_OF_ALL * rate) / (group.num_judged + _CLIPS_OF_ALL)
        num_certain = max(0, min(group.num_needed - group.num_open, group.room))
        opens[at] = group.num_open + num_certain
        if num_certain:
            numbers[at] = num_certain
        if num_certain < group.room and odds(at) > 0:
            likely.append((-odds(at), at))
    heapq.heapify(likely)
    num_unjudged = sum(group.outcomes.count(UNJUDGED) for group in groups if group.num_needed)
    num_left = num_rows - sum(numbers.values()) - num_unjudged // 2
    while likely and num_left > 0:
        _, at = heapq.heappop(likely)
        opens[at], numbers[at], num_left = opens[at] + 1, numbers.get(at, 0) + 1, num_left - 1
        if numbers[at] < groups[at].room and odds(at) > 0:
            heapq.heappush(likely, (-odds(at), at))
    return numbers


def num_expected(group: Group, rate: float) -> int:
    """Return how many clips of a group will be asked for in total, on average."""
    more = math.ceil(group.num_needed / rate) - group.num_open
    return len(group.outcomes) + max(0, min(more, group.room))


class Quotas:
    """Splits the clips of one group after another by shares, such that the sums have these shares, too."""

    def __init__(self, shares: Mapping[tuple[str, ...], float]) -> None:
        self._shares, self._owed = shares, dict.fromkeys(shares, 0.0)

    def split(self, wanted: int) -> dict[tuple[str, ...], int]:
        quotas = dict.fromkeys(self._shares, 0)
        for _ in range(wanted):
            for values, share in self._shares.items():
                self._owed[values] += share
            most = max(self._owed, key=lambda values: self._owed[values])
            self._owed[most] -= 1
            quotas[most] += 1
        return quotas


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Acceptance(Overview):
    """The progress of all groups of an output."""

    groups: tuple[GroupState, ...]
    table: str  # folder in the output with the rows that its newest run asked for

    def overview(self) -> Mapping[str, object]:
        first, *groups = self.lines()
        return {
            "accepted": first.removeprefix("accepted: "),
            **{f"group {number}": group.strip() for number, group in enumerate(groups[:5], 1)},
        }

    @property
    def num_short(self) -> int:
        """Number of groups with fewer accepted clips than they need."""
        return sum(group.is_short for group in self.groups)

    def write(self, store: Store) -> None:
        store.write(_FILE, canonical_json(_ACCEPTANCE.dump_python(self)).encode())

    def lines(self) -> list[str]:
        """Return lines for people: the sums, then the groups that lack most."""
        accepted, wanted, rendered, surplus = (
            sum(numbers)
            for numbers in zip(
                *((one.accepted, one.wanted, one.num_rendered, one.num_surplus) for one in self.groups),
                strict=True,
            )
        )
        num_full = len(self.groups) - self.num_short
        lines = [
            f"accepted: {accepted:,} of {wanted:,}; "
            f"{num_full:,} of {count_text(len(self.groups), 'group')} complete; "
            f"{count_text(rendered, 'clip')} rendered, {surplus:,} of them surplus"
        ]
        worst = sorted(self.groups, key=lambda group: group.accepted / group.wanted)
        lines += [f"  {group}" for group in worst[:_MAX_SHOWN]]
        hidden = len(self.groups) - _MAX_SHOWN
        return lines + [f"  ... and {count_text(hidden, 'more group')}"] * (hidden > 0)


_ACCEPTANCE = TypeAdapter(Acceptance)


def read_acceptance(store: Store) -> Acceptance | None:
    """Return the progress of an output's groups, as last written, or None."""
    try:
        return read_json(store, _FILE, _ACCEPTANCE)
    except (FileNotFoundError, JobError):  # if it is damaged, the next run writes it again
        return None


def acceptance(output: str, *, storage_options: Mapping[str, Any] | None = None) -> Acceptance:
    """Return how many clips of each group are accepted in the output of a job with `until:`.

    While the job runs, this is some seconds old. Raises JobError for an output without groups.
    """
    store = Output.open(output, storage_options).store
    if not (groups := read_acceptance(store)):
        raise JobError(f"{store.url_of(_FILE)} is missing", "use the output of a job with `until:`")
    return groups
