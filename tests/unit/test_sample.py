"""Which rows of an output stand for all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from framefleet import Output, Store
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.plugins.keep.verify.verify import sample_rows
from tests.rows import record


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
