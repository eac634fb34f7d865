"""From the trace of a job and what befell it to figures: rows begun more than once, and how soon again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import median

from tools.chaos.faults import Struck
from tools.chaos.storm import Happened
from tools.chaos.traced import Begun


def seconds_until_again(
    begun: Iterable[Begun], strikes: Sequence[tuple[float, str, Struck]]
) -> Iterator[tuple[str, float]]:
    """Yield for each row that a fault took from a worker the fault, and seconds until it was begun again."""
    rows: dict[int, list[Begun]] = defaultdict(list)
    for one in begun:
        rows[one.seed].append(one)
    for times in rows.values():
        for before, after in pairwise(times):
            for at_s, name, struck in strikes:
                if before.pid in struck.lost and before.at_s <= at_s <= after.at_s:
                    yield name, after.at_s - at_s
                    break


def figures(happened: Happened, begun: Sequence[Begun]) -> list[str]:
    """Return lines for people."""
    kinds = Counter(name for _, name, _ in happened.strikes)
    times = Counter(one.seed for one in begun)
    again: dict[str, list[float]] = defaultdict(list)
    for name, seconds in seconds_until_again(begun, happened.strikes):
        again[name].append(seconds)
    ended = ", ".join(f"{code} {count}x" for code, count in sorted(happened.endings.items()))
    lines = [f"{kinds.total()} faults in {happened.seconds:.0f} s; exit codes of drivers: {ended}"]
    lines += [f"  {count:4}  {name}" for name, count in sorted(kinds.items())]
    more = sum(count - 1 for count in times.values())
    lines.append(
        f"{len(times)} rows begun, {sum(count > 1 for count in times.values())} of them more than once "
        f"({more} times in all)"
    )
    lines += [
        f"{len(waits):4} times a row was begun again after: {name}; median {median(waits):.1f} s, "
        f"worst {max(waits):.1f} s"
        for name, waits in sorted(again.items())
    ]
    return lines
