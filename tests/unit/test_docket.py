"""Rows that wait to be judged: which failures of judges count, and when nobody will judge a row."""

from __future__ import annotations

import pyarrow as pa

from framefleet import Request
from framefleet.cluster.driver.audits import Case, Docket
from framefleet.cluster.driver.feed import Pending
from framefleet.cluster.worker.messages import StoredRow
from framefleet.pipeline.rows.identity import LaneKey
from tests.rows import RECORD

LANE = LaneKey("", "my:recipe")


def test_judges_that_fail_are_counted_and_those_that_leave_are_not() -> None:
    request = Request(arguments={"prompt": "a"}, seed=1, recipe="my:recipe")
    carried = pa.RecordBatch.from_pylist([{"tag": 1}])
    pending = Pending(request=request, carried=carried, position=0, kind="k")
    docket = Docket()
    docket.waiting[LANE].append(Case(pending=pending, stored=StoredRow(record=RECORD), worker="w"))
    for number in range(10):
        assert docket.take(LANE, f"leaves-{number}")
        docket.left(f"leaves-{number}")
        assert len(docket.waiting[LANE]) == 1
    for number in range(3):
        assert docket.take(LANE, f"fails-{number}")
        assert docket.failed(f"fails-{number}") is None
    assert docket.take(LANE, "last")
    assert (case := docket.failed("last")) and case.row_id == RECORD.row_id
    assert not docket.waiting[LANE]
