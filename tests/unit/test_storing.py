"""A machine that is cut off from the store while others use it is told from a store that is down."""

from __future__ import annotations

import pytest

from framefleet.cluster.fleet.losses import CUT_OFF_S, Storing

NOW = 1000.0


@pytest.mark.parametrize(
    ("stored_by", "ago_s", "silent_s", "is_cut_off"),
    [
        ("worker-1", CUT_OFF_S + 1, CUT_OFF_S, False),  # the store is silent to all
        ("worker-1", 1, CUT_OFF_S - 1, False),
        ("worker-1", 1, CUT_OFF_S, True),
        ("worker-0", 1, CUT_OFF_S, False),  # what it stored itself says nothing of others
    ],
)
def test_a_worker_whose_store_is_silent_while_others_store_is_cut_off_after_a_minute(
    stored_by: str, ago_s: float, silent_s: float, is_cut_off: bool
) -> None:
    storing = Storing()
    storing.stored(stored_by, now=NOW - ago_s)
    assert storing.is_cut_off("worker-0", silent_s=silent_s, now=NOW) == is_cut_off
