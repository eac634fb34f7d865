"""Which rows make which batch."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, strategies as st

from framefleet.pipeline.errors import TableError
from framefleet.plugins.train.dataset.batches import Batches
from framefleet.plugins.train.task import Bucket
from tests.toy_task import batches_of

SMALL = Bucket(num_frames=5, height=16, width=16)
LARGE = Bucket(num_frames=9, height=32, width=32)

sizes = st.integers(1, 4)
buckets = st.lists(st.sampled_from([SMALL, LARGE]), min_size=8, max_size=60)


def _epoch(batches: Batches, accumulation: int, world_size: int, epoch: int = 0) -> list[list[list[int]]]:
    """Return the batches of every step of an epoch."""
    first = epoch * batches.steps_per_epoch
    return [
        [
            batches.rows_of(first + step, micro, rank)
            for micro in range(accumulation)
            for rank in range(world_size)
        ]
        for step in range(batches.steps_per_epoch)
    ]


@given(buckets, sizes, st.integers(1, 2), st.integers(1, 2), st.integers(0, 2**31 - 1))
def test_an_epoch_uses_no_row_twice_and_leaves_out_no_full_step(
    buckets: list[Bucket], batch_size: int, accumulation: int, world_size: int, seed: int
) -> None:
    try:
        batches = batches_of(
            buckets, batch_size=batch_size, accumulation=accumulation, world_size=world_size, seed=seed
        )
    except TableError:
        full = sum(count // batch_size for count in Counter(buckets).values())
        assert full < accumulation * world_size
        return
    for epoch in (0, 1):
        steps = _epoch(batches, accumulation, world_size, epoch)
        rows = [row for step in steps for batch in step for row in batch]
        assert len(rows) == len(set(rows))
        assert all(len({buckets[row] for row in batch}) == 1 for step in steps for batch in step)
        assert all(len(batch) == batch_size for step in steps for batch in step)
        full = sum(count // batch_size for count in Counter(buckets).values())
        assert full - len(steps) * accumulation * world_size < accumulation * world_size


def test_the_order_is_of_the_seed_and_the_epoch_and_all_rows_come_in_time() -> None:
    first, again, other = (batches_of([SMALL] * 10, batch_size=4, seed=seed) for seed in (0, 0, 1))
    epochs = [_epoch(first, 1, 1, epoch) for epoch in range(8)]
    assert epochs[3] == _epoch(again, 1, 1, 3) != _epoch(other, 1, 1, 3)
    assert epochs[0] != epochs[1]
    assert {row for epoch in epochs for step in epoch for batch in step for row in batch} == set(range(10))


def test_an_epoch_has_a_row_as_often_as_it_is_repeated() -> None:
    batches = batches_of([SMALL] * 4, batch_size=2, repeats=[3, 1, 2, 2])
    for epoch in (0, 1):
        rows = Counter(row for step in _epoch(batches, 1, 1, epoch) for batch in step for row in batch)
        assert rows == {0: 3, 1: 1, 2: 2, 3: 2}


def test_more_rows_than_memory_holds_are_refused_and_those_that_fill_no_batch_are_named() -> None:
    assert batches_of([SMALL] * 8 + [LARGE] * 3, batch_size=4).unused() == {LARGE: 3}
    with pytest.raises(TableError, match="lower the table's repeats"):
        batches_of([SMALL] * 30_000, batch_size=2, repeats=10_000)


def test_too_few_rows_for_one_step_are_refused_with_what_it_takes() -> None:
    with pytest.raises(TableError) as refused:
        batches_of([SMALL] * 7 + [LARGE] * 7, batch_size=4, accumulation=2, world_size=2)
    assert refused.value.problem == (
        "one step takes 16 rows (batch_size 4 x accumulation 2 x 2 workers), and there are 14 "
        "(7 of 5 x 16 x 16, 7 of 9 x 32 x 32; a batch is of one size)"
    )
