"""Which rows of an output are drawn, and for how many of all they stand."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from framefleet import Output, Store
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.plugins.keep.verify.verify import sample_rows
from framefleet.plugins.prove.certificate import DrawnRow
from framefleet.plugins.prove.drawing import drawn_positions, most_off
from framefleet.plugins.prove.tree import Tree, leaf_hash, root_from
from tests.rows import record


@given(st.integers(1, 70), st.data())
def test_each_leaf_is_shown_at_its_own_position_alone(num_leaves: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(str(number).encode()) for number in range(num_leaves)]
    tree = Tree(leaves)
    position, other = (data.draw(st.integers(0, num_leaves - 1)) for _ in range(2))
    path = tree.path(position)
    assert root_from(leaves[position], path, position=position, num_leaves=num_leaves) == tree.root
    if other != position:
        assert root_from(leaves[other], path, position=position, num_leaves=num_leaves) != tree.root
        assert root_from(leaves[position], path, position=other, num_leaves=num_leaves) != tree.root
    assert root_from(leaves[position], [*path, path[0] if path else b""], position=position,
                     num_leaves=num_leaves) is None  # fmt: skip


def test_each_row_is_drawn_once_and_as_often_as_any_other() -> None:
    seal = hashlib.sha256(b"records").hexdigest()
    assert sorted(drawn_positions(seal, "x", num_rows=50, count=60)) == list(range(50))
    with_the_wrong_row = 0
    for coin in range(200):  # one row of 600 is of another seed
        drawn = drawn_positions(seal, str(coin), num_rows=600, count=60)
        assert len({*drawn}) == 60 and {*drawn} <= {*range(600)}
        with_the_wrong_row += 123 in drawn
    # Each draws it with a probability of 60 / 600: 20 of 200, and 4.2 more or less; here three times that.
    assert 8 <= with_the_wrong_row <= 32


@pytest.mark.parametrize("num_off", [1, 28, 120])
def test_the_bound_is_false_in_at_most_one_of_twenty_drawings(num_off: int) -> None:
    seal, num_false = hashlib.sha256(b"others").hexdigest(), 0
    for coin in range(200):
        drawn = drawn_positions(seal, str(coin), num_rows=600, count=60)
        found = sum(position < num_off for position in drawn)
        num_false += most_off(600, num_drawn=60, num_off=found) < num_off
    assert num_false <= 19  # 10 of 200, and 3.1 more or less: here three times that


@pytest.mark.parametrize(
    ("num_rows", "num_drawn", "num_off", "most"),
    [(600_000, 60, 0, 29_220), (600, 60, 0, 27), (10, 10, 0, 0), (10, 10, 3, 3), (5, 1, 1, 5), (4, 3, 0, 1)],
)
def test_the_bound_is_the_hypergeometric_one(num_rows: int, num_drawn: int, num_off: int, most: int) -> None:
    from scipy.stats import hypergeom

    assert most_off(num_rows, num_drawn=num_drawn, num_off=num_off) == most
    if most < num_rows - num_drawn + num_off:
        assert hypergeom.cdf(num_off, num_rows, most + 1, num_drawn) <= 0.05
    assert hypergeom.cdf(num_off, num_rows, most, num_drawn) > 0.05


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an output of 90 rows of one worker and kind, and ten of others, in parts of ten."""
    store = Store(str(tmp_path))
    writer = PartWriter(store, "records", RECORD_FIELDS, run="r1")
    for number in range(100):
        is_rare = number % 10 == 7
        worker, height = (f"worker-{number // 10}", 64) if is_rare else ("worker-0", 32)
        writer.add(None, values_of(record(number, worker=worker, node=worker, height=height)))
        if writer.rows_waiting == 10:
            writer.flush()
    return store


def test_a_sample_has_as_many_as_can_be_of_each_kind_and_machine(store: Store) -> None:
    chosen = sample_rows(Output(store), 6)
    assert sorted(Counter(one.group[0] for one in chosen).values()) == [3, 3]
    assert len({one.group[2] for one in chosen}) == 4
    assert len({one.row_id for one in chosen}) == 6


def test_equal_seeds_choose_equal_rows_whose_parts_alone_are_read(store: Store) -> None:
    output = Output(store)
    chosen = sample_rows(output, 5, seed=1)
    assert chosen == sample_rows(output, 5, seed=1) != sample_rows(output, 5, seed=2)
    holding = output.holding([one.row_id for one in chosen])
    assert holding.num_newer_parts() > 0
    for one in chosen:
        assert holding.record(one.row_id) == output.record(one.row_id)


def test_all_are_chosen_where_there_are_fewer_and_groups_that_are_too_many_are_one(store: Store) -> None:
    assert [len(sample_rows(Output(store), count)) for count in (1000, 60_000)] == [100, 100]


def test_a_column_may_be_called_as_what_says_that_a_row_has_no_record() -> None:
    missing = {"row_id": "0" * 32, "is_missing": True}
    assert DrawnRow(position=0, record=missing, path=[]).is_missing
    assert not DrawnRow(position=0, record=missing | {"seed": 1}, path=[]).is_missing
