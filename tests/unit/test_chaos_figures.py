"""What `make chaos` tells of rows that a fault took."""

from __future__ import annotations

from collections import Counter

from tools.chaos.faults import Struck
from tools.chaos.figures import figures
from tools.chaos.storm import Happened
from tools.chaos.traced import Begun


def test_a_lost_row_is_counted_from_the_fault_until_another_worker_begins_it() -> None:
    killed = (10.0, "worker killed", Struck(where="pid 1", lost=frozenset({1})))
    begun = [
        Begun(seed=0, pid=1, host="h1", at_s=5.0),
        Begun(seed=1, pid=1, host="h1", at_s=9.0),
        Begun(seed=1, pid=2, host="h2", at_s=13.5),
        Begun(seed=2, pid=2, host="h2", at_s=14.0),
    ]
    told = figures(Happened([killed], Counter({0: 1, -9: 2}), 20.0), begun)
    assert told == [
        "1 faults in 20 s; exit codes of drivers: -9 2x, 0 1x",
        "     1  worker killed",
        "3 rows begun, 1 of them more than once (1 times in all)",
        "   1 times a row was begun again after: worker killed; median 3.5 s, worst 3.5 s",
    ]
