"""Row ids on disk find what a dict does: any table, with gaps, twins and ids that are half alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from framefleet.pipeline.rows.tables import row_ids

HALF = st.sampled_from(["0" * 16, "0" * 15 + "1", "7" + "f" * 15, "8" + "0" * 15, "f" * 16])
TABLES = st.dictionaries(st.integers(0, 40), st.builds(str.__add__, HALF, HALF))


@given(table=TABLES, others=st.lists(st.builds(str.__add__, HALF, HALF)), at_once=st.integers(1, 9))
def test_what_is_found_is_what_was_written(table: dict[int, str], others: list[str], at_once: int) -> None:
    with closing(row_ids.RowIds(at_once=at_once)) as ids:
        is_there = np.zeros(max(table, default=-1) + 1, np.bool_)
        for rows in _pieces([*table.items()]):
            positions = row_ids.as_positions(position for position, _ in rows)
            is_there[positions] = True
            ids.write(positions, row_ids.to_ids([row_id for _, row_id in rows]))
        places = {row_id: sorted(at for at in table if table[at] == row_id) for row_id in table.values()}
        pairs = [(one, other) for some in ids.sort(is_there) for one, other in zip(*some, strict=True)]
        twinned, twins = [one for one, _ in pairs], [other for _, other in pairs]

        assert sorted(twins) == sorted(at for found in places.values() for at in found[1:])
        assert sorted(twinned) == sorted(at for found in places.values() for at in found[:-1])
        asked = [*places, *others]
        firsts = [places.get(row_id, [-1])[0] for row_id in asked]
        assert ids.first_positions(row_ids.to_ids(asked)).tolist() == firsts
        column = pa.chunked_array(
            [pa.array(asked[:2], pa.string()), pa.array(["x", *asked[2:]], pa.string())[1:]]
        )
        assert (row_ids.ids_of(column) == row_ids.to_ids(asked)).all()
        assert [ids.positions(row_id) for row_id in asked] == [places.get(row_id, []) for row_id in asked]
        assert row_ids.to_texts(ids.read_at(row_ids.as_positions(table))) == [*table.values()]


def _pieces(rows: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    for first in range(0, len(rows), 3):
        yield rows[first : first + 3]


@given(lists=st.lists(st.lists(st.integers(0, 9), min_size=1), min_size=1), first=st.integers(0, 3))
def test_the_first_of_each_list_is_taken(lists: list[list[int]], first: int) -> None:
    halves = pa.array(lists[:1], pa.list_(pa.int64())), pa.array(lists[1:], pa.list_(pa.int64()))
    found = row_ids.first_positions_of(pa.chunked_array(halves).slice(first))
    expected = [one[0] for one in lists[first:]]
    assert (found is None and not expected) or (found is not None and found.tolist() == expected)


@pytest.mark.parametrize("lists", [[[1], []], [[1], None], [[1], [None]], []])
def test_where_a_list_has_no_first_there_is_none(lists: list[list[int | None] | None]) -> None:
    assert row_ids.first_positions_of(pa.chunked_array([pa.array(lists, pa.list_(pa.int64()))])) is None
