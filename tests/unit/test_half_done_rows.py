"""Checkpoints in an output: those of rows that the job no longer has stay for a run that has them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefleet import Store
from framefleet.cluster.driver.commit import HalfDoneRows, half_done_in
from framefleet.cluster.worker.checkpointer import checkpoint_path

HERE, DONE, ELSEWHERE = "a" * 32, "b" * 32, "c" * 32


@pytest.mark.parametrize(("others", "left"), [([], set()), ([ELSEWHERE], {ELSEWHERE})])
def test_a_complete_run_deletes_the_checkpoints_of_its_own_rows(
    others: list[str], left: set[str], tmp_path: Path
) -> None:
    store = Store(str(tmp_path))
    for row_id in (HERE, DONE, *others):
        store.write(checkpoint_path(row_id), b"half a clip")
    rows = HalfDoneRows(store, is_whole=True)
    rows.find({HERE: True, DONE: False}.get)
    assert HERE in rows and DONE not in rows
    rows.drop([HERE])
    rows.close(is_complete=True)
    assert {*half_done_in(store)} == left
