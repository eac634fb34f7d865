"""Which model a new worker loads, and when an idle worker gives up its own for another. Pure, no clock.

A worker is pinned to one model, as loading takes minutes. It moves only when no row of its model waits, and
what another model's rows would give it to do is worth a multiple of the loading. So neither a lull nor a
few late rows cost a warm worker. A model that no worker has is served as soon as one is idle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# What is known of the seconds of rows may be off by a factor of two; a move that gains nothing costs a load.
MIN_LOADS = 3.0
# Until a worker has loaded any model: a large one from a disk. Short, and small models move sooner.
LOAD_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What waits for one model's workers.

    num_rows: that no worker has. row_s: seconds that a worker takes for each; None: none has ended. row_work:
    what it is expected to take, in a unit that is the same for all models. num_workers: that have the model,
    or load it. load_s: seconds that loading takes; None: nobody has yet.
    """

    num_rows: int
    row_s: float | None
    num_workers: int
    load_s: float | None
    row_work: float = 1.0


def next_model(backlogs: Mapping[str, Backlog]) -> str:
    """Return the model of a worker that starts: the one that gives it most to do."""
    shares = shares_s(backlogs)
    return max(shares, key=lambda name: shares[name])


def move_from(own: str, backlogs: Mapping[str, Backlog]) -> str | None:
    """Return the model for which an idle worker should give up its own; None: it waits for rows of that."""
    if own in backlogs and backlogs[own].num_rows:
        return None
    shares = {name: share for name, share in shares_s(backlogs).items() if name != own and share > 0}
    unserved = {name: share for name, share in shares.items() if not backlogs[name].num_workers}
    best = max(unserved or shares, key=lambda name: shares[name], default=None)
    if best is None or best in unserved:
        return best
    return best if shares[best] >= MIN_LOADS * _load_s(best, backlogs) else None


def shares_s(backlogs: Mapping[str, Backlog]) -> dict[str, float]:
    """Return how many seconds of each model's rows one more worker would take over.

    Where no row of a model has ended, work is taken to last as long as that of the others.
    """
    known = [one.row_s / one.row_work for one in backlogs.values() if one.row_s is not None]
    usual_s = sum(known) / len(known) if known else 1.0
    return {
        name: one.num_rows
        * (one.row_work * usual_s if one.row_s is None else one.row_s)
        / (one.num_workers + 1)
        for name, one in backlogs.items()
    }


def _load_s(model: str, backlogs: Mapping[str, Backlog]) -> float:
    known = [one.load_s for one in backlogs.values() if one.load_s is not None]
    own = backlogs[model].load_s
    return own if own is not None else max(known, default=LOAD_S)
