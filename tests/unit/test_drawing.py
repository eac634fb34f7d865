"""A seal and a coin draw rows, each as likely as any other; few of them bound how many of all are wrong."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, strategies as st

from framefleet.plugins.prove.drawing import drawn_positions, most_off
from framefleet.plugins.prove.tree import Tree, leaf_hash, root_from


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
