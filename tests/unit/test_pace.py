"""The time left is told once it means something, and not before."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from framefleet.cluster.driver.tally import Point, Tally, TimeLeft, eta_s


def batches(count: int, *, size: int, each_s: float = 10.0, since: float = 0.0) -> list[Point]:
    """Return when the rows of one worker were finished: all of a batch at its end."""
    return [(since + each_s * (number // size + 1), number + 1) for number in range(count * size)]


def told(points: Sequence[Point], *, left: int = 100, workers: int = 1, batch: float = 1.0) -> float | None:
    return eta_s(points, left, now=points[-1][0], workers=workers, batch=batch)


@pytest.mark.parametrize(
    ("points", "workers"),
    [
        ([(0.0, 0)], 1),
        (batches(9, size=1), 0),
        ([(0.0, 0), (300.0, 1), *((300.0 + n, n + 1) for n in range(1, 6))], 1),  # a slow start
        ([(float(n**4), n) for n in range(1, 40)], 1),  # rows that take more and more time
    ],
)
def test_nothing_is_told_without_rows_workers_and_a_pace(points: list[Point], workers: int) -> None:
    assert told(points, workers=workers) is None


@pytest.mark.parametrize(("size", "workers"), [(1, 1), (8, 1), (1, 4)])
def test_the_first_batches_of_every_worker_are_waited_for(size: int, workers: int) -> None:
    first = [count for count in range(1, 40) if told(batches(count, size=size), workers=workers, batch=size)]
    assert first[0] >= max(4, 2 * workers)


def test_even_rows_give_their_pace() -> None:
    assert told(batches(21, size=1, each_s=3.0), left=50) == pytest.approx(150.0)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_batches_that_end_at_once_do_not_make_it_flicker(size: int) -> None:
    points = batches(30, size=size)
    enough = next(n for n in range(1, len(points)) if told(points[:n], batch=size) is not None)
    assert all(told(points[:n], batch=size) is not None for n in range(enough, len(points)))
    assert told(points, left=size, batch=size) == pytest.approx(10.0, rel=0.1)


def test_a_silence_makes_it_quiet_until_rows_come_again() -> None:
    points = batches(20, size=1)
    assert eta_s(points, 10, now=points[-1][0] + 25, workers=1, batch=1.0) is not None
    assert eta_s(points, 10, now=points[-1][0] + 35, workers=1, batch=1.0) is None


def test_what_is_told_of_rows_of_changing_lengths_is_near_what_comes() -> None:
    draw = random.Random(0)
    now, points = 0.0, []
    for number in range(400):
        now += draw.uniform(1, 9)
        points.append((now, number + 1))
    for seen in range(60, 300, 20):
        guessed = told(points[:seen], left=400 - seen)
        assert guessed == pytest.approx(now - points[seen - 1][0], rel=0.25)


def test_another_number_of_workers_begins_anew_and_one_of_many_does_not() -> None:
    pace = TimeLeft()
    for number in range(20):
        pace.finished(number, now=float(number), workers=1)
    assert pace.eta_s(10, now=19.0, batch=1.0) == pytest.approx(10.0)
    pace.finished(20, now=20.0, workers=2)
    assert pace.eta_s(10, now=20.0, batch=1.0) is None
    for number in range(21, 300):
        pace.finished(number, now=float(number), workers=40 + number % 3)
    assert pace.eta_s(10, now=299.0, batch=1.0) == pytest.approx(10.0)


def test_a_run_is_quiet_about_its_end_at_first_and_tells_it_then() -> None:
    tally = Tally(100, now=0.0, before=7)
    tally.joined("worker-0", "here")
    tally.leased(now=0.0)
    etas = []
    for second in range(1, 51):
        tally.done("worker-0", 1.0)
        etas.append(tally.progress(float(second)).eta_s)
    assert etas[:4] == [None] * 4
    assert etas[-1] == pytest.approx(50.0)
    assert tally.progress(50.0).before == 7
