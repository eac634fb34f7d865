"""Which lane a new worker serves, and when an idle worker gives up its own for another. Pure, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from framefleet.pipeline.rows.identity import LaneKey

# Estimates of the seconds of rows may be off by a factor of two; a move that gains nothing costs a load.
MIN_LOADS = 3.0
# Until a worker has loaded any model: a large one from a disk. Short, and small models move sooner.
LOAD_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits for one lane's workers."""

    num_rows: int  # that no worker has
    row_s: float | None  # seconds that a worker takes for each; None: none has ended
    num_workers: int  # that serve the lane, or are on their way
    load_s: float | None  # seconds that loading takes; None: nobody has yet
    row_work: float = 1.0  # what a row is expected to take, in a unit that is the same for all lanes


def next_lane(backlogs: Mapping[LaneKey, Backlog]) -> LaneKey:
    """Return the lane for a worker that starts: the one that gives it most to do."""
    shares = shares_s(backlogs)
    return max(shares, key=lambda key: shares[key])


def move_from(own: LaneKey, backlogs: Mapping[LaneKey, Backlog]) -> LaneKey | None:
    """Return the lane that an idle worker should move to; None: it waits for rows of its own."""
    if own in backlogs and backlogs[own].num_rows:
        return None
    shares = {key: share for key, share in shares_s(backlogs).items() if key != own and share > 0}
    unserved = {key: share for key, share in shares.items() if not backlogs[key].num_workers}
    best = max(unserved or shares, key=lambda key: shares[key], default=None)
    if best is None or best in unserved:
        return best
    load_s = backlogs[best].load_s
    if load_s is None:
        loads_s = (backlog.load_s for backlog in backlogs.values() if backlog.load_s is not None)
        load_s = max(loads_s, default=LOAD_S)
    return best if shares[best] >= MIN_LOADS * load_s else None


def shares_s(backlogs: Mapping[LaneKey, Backlog]) -> dict[LaneKey, float]:
    """Return how many seconds of each lane's rows one more worker would take over.

    If no row of a lane has ended, its work is assumed to take as long as that of the others.
    """
    rates = [backlog.row_s / backlog.row_work for backlog in backlogs.values() if backlog.row_s is not None]
    usual_s = sum(rates) / len(rates) if rates else 1.0
    return {
        key: backlog.num_rows
        * (backlog.row_work * usual_s if backlog.row_s is None else backlog.row_s)
        / (backlog.num_workers + 1)
        for key, backlog in backlogs.items()
    }
